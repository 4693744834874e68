// usage: node stream_chat.mjs BASE_URL
// Talks to a tier through the official client: models, a whole answer, the same answer streamed, an error, a stream that is
// left in the middle. Exits 0 when all is as OpenAI's API says; prints what is not.
import OpenAI from 'openai';
import assert from 'node:assert/strict';

const client = new OpenAI({ baseURL: process.argv[2], apiKey: 'not needed', maxRetries: 0, timeout: 60000 });
const messages = [
  { role: 'developer', content: 'Be brief.' },
  { role: 'user', content: 'hello there' },
];

const models = await client.models.list();
assert.ok(models.data.length > 0, 'no model is listed');
const model = models.data[0].id;

const whole = await client.chat.completions.create({ model, messages, max_tokens: 24, seed: 1 });
assert.equal(whole.object, 'chat.completion');
assert.ok(['stop', 'length'].includes(whole.choices[0].finish_reason));
assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);
assert.ok(whole.updraft.decision, 'no provenance');

let text = '';
let finish = null;
let usage = null;
let deltas = 0;
const stream = await client.chat.completions.create({
  model,
  messages,
  max_tokens: 24,
  seed: 1,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  if (chunk.usage) usage = chunk.usage;
  if (chunk.choices.length === 0) continue;
  text += chunk.choices[0].delta.content ?? '';
  if (chunk.choices[0].delta.content) ++deltas;
  finish = chunk.choices[0].finish_reason ?? finish;
}
assert.equal(text, whole.choices[0].message.content, 'the streamed answer differs');
assert.equal(finish, whole.choices[0].finish_reason);
// The second of them may find the prompt of the first in a cache, and says so.
const counts = ({prompt_tokens, completion_tokens, total_tokens}) => ({prompt_tokens, completion_tokens, total_tokens});
assert.deepEqual(counts(usage), counts(whole.usage));

const completion = await client.completions.create({ model, prompt: 'Once upon a time', max_tokens: 4 });
assert.equal(completion.usage.completion_tokens, 4);

await assert.rejects(client.chat.completions.create({ model, messages: [{ role: 'king', content: 'x' }] }), (error) => {
  assert.ok(error instanceof OpenAI.BadRequestError, `expected BadRequestError, found ${error}`);
  assert.equal(error.param, 'messages[0].role');
  return true;
});
await assert.rejects(client.chat.completions.create({ model: 'no-such-model', messages }), OpenAI.NotFoundError);

const left = await client.chat.completions.create({ model, messages, max_tokens: 400, stream: true });
for await (const chunk of left) {
  if (chunk.choices[0]?.delta.content) break;  // leaves the loop, which aborts the request
}
const after = await client.chat.completions.create({ model, messages, max_tokens: 24, seed: 1 });
assert.equal(after.choices[0].message.content, whole.choices[0].message.content);

console.log(`openai ${model}: ${deltas} deltas, ${usage.completion_tokens} tokens, finished by ${finish}`);
