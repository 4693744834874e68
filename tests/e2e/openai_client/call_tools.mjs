// usage: node call_tools.mjs BASE_URL
// Calls of tools through the official client, at a tier started with --chat-template=hermes: its helper runs a whole loop of
// calls and results, its parser of streams puts calls together, its schema helpers send strict tools. Exits 0 when all is as OpenAI's
// API says; prints what is not.
import OpenAI from 'openai';
import assert from 'node:assert/strict';

const client = new OpenAI({ baseURL: process.argv[2], apiKey: 'not needed', maxRetries: 0, timeout: 60000 });
const model = (await client.models.list()).data[0].id;
const messages = [{ role: 'user', content: 'hello there' }];
const parameters = {
  type: 'object',
  properties: { zone: { type: 'string', enum: ['left', 'right'] }, level: { type: 'integer', minimum: 0, maximum: 9 } },
  required: ['zone', 'level'],
  additionalProperties: false,
};
const tools = [{ type: 'function', function: { name: 'set_level', description: 'Sets a level.', strict: true, parameters } }];
const asked = { model, messages, tools, tool_choice: 'required', parallel_tool_calls: false, max_tokens: 400, seed: 3, temperature: 1 };

const whole = await client.chat.completions.create(asked);
assert.equal(whole.choices[0].finish_reason, 'tool_calls');
assert.equal(whole.choices[0].message.content, null);
const [call] = whole.choices[0].message.tool_calls;
assert.equal(call.function.name, 'set_level');
const args = JSON.parse(call.function.arguments);
assert.ok(['left', 'right'].includes(args.zone) && Number.isInteger(args.level), call.function.arguments);

// The client's own accumulation of a stream, with its events.
let deltas = 0;
const runner = client.chat.completions.stream(asked);
runner.on('tool_calls.function.arguments.delta', () => ++deltas);
const final = await runner.finalChatCompletion();
assert.deepEqual(final.choices[0].message.tool_calls.map((c) => c.function.arguments), [call.function.arguments]);
assert.ok(deltas > 0, 'no arguments were streamed');

// The loop: call, run, tell the result, go on. Random weights would call for ever, so the second round is the last.
let ran = 0;
const loop = client.chat.completions.runTools(
  {
    ...asked,
    tools: [
      {
        type: 'function',
        function: { name: 'set_level', description: 'Sets a level.', parameters, parse: JSON.parse, function: ({ level }) => `set to ${level}, ${++ran}` },
      },
    ],
    tool_choice: 'required',
  },
  { maxChatCompletions: 2 },
);
await loop.done();
assert.ok(ran >= 1, 'the tool did not run');
const roles = loop.messages.map((m) => m.role);
assert.deepEqual(roles.slice(0, 4), ['user', 'assistant', 'tool', 'assistant']);

console.log(`openai ${model}: ${whole.choices[0].message.tool_calls.length} call, ${deltas} deltas of arguments, ${ran} runs`);
