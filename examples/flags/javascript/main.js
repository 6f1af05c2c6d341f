// Asks for three users with OpenFeature's own SDK; once, or with `watch` every second. The server evaluates.
import { setTimeout } from 'node:timers/promises';
import { OpenFeature } from '@openfeature/server-sdk';
import { FlagdProvider } from '@openfeature/flagd-provider';

// localhost:8013, unless FLAGD_HOST and FLAGD_PORT say otherwise.
await OpenFeature.setProviderAndWait(new FlagdProvider());
const client = OpenFeature.getClient();
const users = ['user-1', 'user-2', 'user-3'];

async function ask() {
  const answers = await Promise.all(
    users.map(async (user) => `${user} ${await client.getBooleanValue('new-scoring-algorithm', false, { targetingKey: user })}`),
  );
  console.log(`javascript: ${answers.join(', ')}`);
}

await ask();
while (process.argv.includes('watch')) {
  await setTimeout(1000);
  await ask();
}
await OpenFeature.close();
