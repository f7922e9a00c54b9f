"""Says in one line what became of a run, and fails if the protocol did not hold."""

import json
import sys

model, path, errors = sys.argv[1:4]
lines = [json.loads(line) for line in open(path)]
if not lines or lines[-1].get("type") != "result":
    sys.exit(f"{model}: no result\n{open(errors).read()}")
result = lines[-1]
kinds = [line["type"] for line in lines]
calls = [line["tool"] for line in lines if line["type"] == "tool_call"]
streamed = kinds.count("assistant_chunk")
if result["subtype"] not in ("success", "max_iterations"):
    sys.exit(f"{model}: {result['subtype']}: {result.get('error')}")
if "tools" in model and not calls:
    sys.exit(f"{model}: no tool was called")
answer = (result["result"] or "").strip().replace("\n", " ")[:80]
usage = result["usage"]
print(f"{model}: {result['subtype']}, {usage['prompt_tokens']} + {usage['completion_tokens']} tokens, {streamed} pieces, calls {calls}, {answer!r}")
