// Answers with OpenFeature's JavaScript core, line by line; the tests and the benchmark of `flags` drive it.
//
// In, one JSON text a line: {"flags": "<flag set>"}, or {"key": …, "context": {…}}, or the latter with "times": n to be measured.
// Out, for the latter two: {"variant", "reason", "error", "message"}, or {"ns": …} per evaluation, the median of nine rounds.

const { FlagdCore } = require("@openfeature/flagd-core");

const quiet = { error() {}, warn() {}, info() {}, debug() {} };
const core = new FlagdCore(undefined, quiet);

function answer(key, context) {
  const details = core.resolveStringEvaluation(key, "code default", context, quiet);
  return {
    variant: details.variant ?? null,
    reason: details.reason,
    error: details.errorCode ?? null,
    message: details.errorMessage ?? null,
  };
}

function measured(key, context, times) {
  const rounds = [];
  for (let round = 0; round < 9; round++) {
    const start = process.hrtime.bigint();
    for (let time = 0; time < times; time++) core.resolveStringEvaluation(key, "code default", context, quiet);
    rounds.push(Number(process.hrtime.bigint() - start) / times);
  }
  return { ns: rounds.sort((one, other) => one - other)[4] };
}

const answers = [];
for (const line of require("node:fs").readFileSync(0, "utf8").split("\n")) {
  if (!line) continue;
  const asked = JSON.parse(line);
  if ("flags" in asked) {
    try {
      core.setConfigurations(asked.flags);
    } catch (error) {
      answers.push({ rejected: String(error) });
    }
    continue;
  }
  answers.push("times" in asked ? measured(asked.key, asked.context, asked.times) : answer(asked.key, asked.context));
}
process.stdout.write(answers.map((answer) => JSON.stringify(answer) + "\n").join(""));
