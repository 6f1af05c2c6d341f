"""Answers with OpenFeature's Python core, line by line; the tests and the benchmark of `flags` drive it.

In, one JSON text a line: {"flags": "<flag set>"}, or {"key": …, "context": {…}}, or the latter with "times": n to be measured.
Out, for the latter two: {"variant", "reason", "error", "message"}, or {"ns": …} per evaluation, the median of nine rounds.
"""

import json
import logging
import statistics
import sys
import time

from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import OpenFeatureError

logging.disable(logging.CRITICAL)
core = FlagdCore()


def answer(key, context):
    try:
        details = core.resolve_string_value(key, "code default", context)
        return {"variant": details.variant, "reason": str(details.reason), "error": None, "message": None}
    except OpenFeatureError as error:
        return {"variant": None, "reason": "ERROR", "error": error.error_code.value, "message": error.error_message}
    except Exception as error:  # The SDK makes a GENERAL of it.
        return {"variant": None, "reason": "ERROR", "error": "GENERAL", "message": str(error)}


def measured(key, context, times):
    rounds = []
    for _ in range(9):
        start = time.perf_counter_ns()
        for _ in range(times):
            core.resolve_string_value(key, "code default", context)
        rounds.append((time.perf_counter_ns() - start) / times)
    return {"ns": statistics.median(rounds)}


for line in sys.stdin:
    asked = json.loads(line)
    if "flags" in asked:
        try:
            core.set_flags(asked["flags"])
        except Exception as error:
            print(json.dumps({"rejected": str(error)}))
        continue
    attributes = dict(asked["context"])
    context = EvaluationContext(targeting_key=attributes.pop("targetingKey", None), attributes=attributes)
    result = measured(asked["key"], context, asked["times"]) if "times" in asked else answer(asked["key"], context)
    print(json.dumps(result))
