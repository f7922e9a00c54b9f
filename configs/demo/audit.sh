#!/bin/sh
# Counts rows, labels and rows whose text was there before.
awk -F '\t' '
    NR == 1 { next }
    {
        key = $2
        rows++
        labels[$1]++
        if (key in first) { duplicates++; if (first[key] != $1) conflicts++ }
        else first[key] = $1
    }
    END {
        printf "rows %d\n", rows
        for (label in labels) printf "label %s %d\n", label, labels[label]
        printf "duplicates %d\n", duplicates
        printf "conflicts %d\n", conflicts
    }
' "$1"
