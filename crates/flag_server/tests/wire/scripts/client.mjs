// An unmodified OpenFeature client: `node client.mjs FOLDER-OF-MODULES rpc|in-process|ofrep HOST PORT`.
// Prints what it reads as one line of JSON, then, once the value of `pushed` has changed, `changed`.

import { createRequire } from 'node:module';

const [folder, kind, host, port] = process.argv.slice(2);
const load = createRequire(`${folder}/`);
const { OpenFeature, ProviderEvents } = load('@openfeature/server-sdk');
const { FlagdProvider } = load('@openfeature/flagd-provider');
const { OFREPProvider } = load('@openfeature/ofrep-provider');

const provider = kind === 'ofrep'
  ? new OFREPProvider({ baseUrl: `http://${host}:${port}` })
  : new FlagdProvider({ host, port: Number(port), resolverType: kind, deadlineMs: 10_000 });
await OpenFeature.setProviderAndWait(provider);
const client = OpenFeature.getClient();
const ana = { targetingKey: 'ana', email: 'ana@example.com', age: 40 };

const said = async (details) => {
  const { value, variant, reason, errorCode } = await details;
  return [value, variant ?? null, reason ?? null, errorCode ?? null];
};

console.log(JSON.stringify({
  // First, because rpc keeps static answers whatever type is asked for next.
  mismatch: await said(client.getBooleanDetails('string', true, ana)),
  bool: await said(client.getBooleanDetails('bool', false, ana)),
  string: await said(client.getStringDetails('string', 'code', ana)),
  int: await said(client.getNumberDetails('int', -1, ana)),
  float: await said(client.getNumberDetails('float', -1.0, ana)),
  object: await said(client.getObjectDetails('object', {}, ana)),
  targeted: await said(client.getStringDetails('targeted', 'code', ana)),
  slashes: await said(client.getBooleanDetails('a b/c', false, ana)),
  disabled: await said(client.getBooleanDetails('disabled', true, ana)),
  'no default': await said(client.getStringDetails('no-default', 'code', ana)),
  unknown: await said(client.getBooleanDetails('no-such-flag', true, ana)),
  share: await said(client.getStringDetails('share', 'code', ana)),
  'share of nobody': await said(client.getStringDetails('share', 'code', {})),
}));

const isNew = async () => (await client.getStringValue('pushed', 'code', ana)) === 'new';
const deadline = Date.now() + 20_000;
let wake = () => {};
client.addHandler(ProviderEvents.ConfigurationChanged, () => wake());
while (!(await isNew())) {
  if (Date.now() > deadline) throw new Error('the change did not come');
  await new Promise((resolve) => { wake = resolve; setTimeout(resolve, kind === 'ofrep' ? 10 : 200); });
}
console.log('changed');
await OpenFeature.close();
process.exit(0);
