"""Asks for three users with OpenFeature's own SDK; once, or with `watch` every second. The server evaluates."""

import sys
import time

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.evaluation_context import EvaluationContext

# localhost:8013, unless FLAGD_HOST and FLAGD_PORT say otherwise.
api.set_provider_and_wait(FlagdProvider())
client = api.get_client()
users = [EvaluationContext("user-1"), EvaluationContext("user-2"), EvaluationContext("user-3")]


def ask():
    answers = [client.get_boolean_value("new-scoring-algorithm", False, user) for user in users]
    print("python:", ", ".join(f"{user.targeting_key} {str(on).lower()}" for user, on in zip(users, answers)), flush=True)


ask()
while "watch" in sys.argv:
    time.sleep(1)
    ask()
api.shutdown()
