#!/bin/sh
# A majority vote and a naive Bayes classifier over words; every fifth row is held out.
awk -F '\t' '
    NR == 1 { next }
    {
        text = tolower($2)
        gsub(/[^a-z ]/, " ", text)
        n++
        held = (n % 5 == 0)
        if (held) { tests++; test[tests] = text; truth[tests] = $1; next }
        trained++
        docs[$1]++
        count = split(text, words, " ")
        for (k = 1; k <= count; k++) {
            freq[$1, words[k]]++
            total[$1]++
            if (!(words[k] in vocabulary)) { vocabulary[words[k]] = 1; size++ }
        }
    }
    END {
        for (label in docs) if (docs[label] > docs[majority]) majority = label
        for (t = 1; t <= tests; t++) {
            count = split(test[t], words, " ")
            best = ""
            for (label in docs) {
                score = log(docs[label] / trained)
                for (k = 1; k <= count; k++)
                    score += log((freq[label, words[k]] + 1) / (total[label] + size))
                if (best == "" || score > top) { best = label; top = score }
            }
            if (best == truth[t]) right++
            if (majority == truth[t]) by_majority++
        }
        printf "train %d test %d\n", trained, tests
        printf "majority accuracy %.3f\n", by_majority / tests
        printf "naive_bayes accuracy %.3f\n", right / tests
    }
' "$1"
