// An unmodified OpenFeature client of a web page, told of changes by server-sent events:
// `node --experimental-eventsource page.mjs FOLDER-OF-MODULES HOST PORT`.
// Prints what it reads as one line of JSON, then, once the value of `pushed` has changed, `changed`.

import { createRequire } from 'node:module';

const [folder, host, port] = process.argv.slice(2);
const load = createRequire(`${folder}/`);
const { OpenFeature, ProviderEvents } = load('@openfeature/web-sdk');
const { OFREPWebProvider } = load('@openfeature/ofrep-web-provider');

const provider = new OFREPWebProvider({ baseUrl: `http://${host}:${port}`, cacheMode: 'disabled' });
await OpenFeature.setContext({ targetingKey: 'ana', email: 'ana@example.com' });
await OpenFeature.setProviderAndWait(provider);
const client = OpenFeature.getClient();

const said = ({ value, variant, reason, errorCode }) => [value, variant ?? null, reason ?? null, errorCode ?? null];

console.log(JSON.stringify({
  bool: said(client.getBooleanDetails('bool', false)),
  object: said(client.getObjectDetails('object', {})),
  targeted: said(client.getStringDetails('targeted', 'code')),
  slashes: said(client.getBooleanDetails('a b/c', false)),
  disabled: said(client.getBooleanDetails('disabled', true)),
  unknown: said(client.getBooleanDetails('no-such-flag', true)),
  mismatch: said(client.getBooleanDetails('string', true)),
}));

const isNew = () => client.getStringValue('pushed', 'code') === 'new';
await new Promise((resolve) => {
  client.addHandler(ProviderEvents.ConfigurationChanged, () => isNew() && resolve());
  if (isNew()) resolve();
});
console.log('changed');
await OpenFeature.close();
process.exit(0);
