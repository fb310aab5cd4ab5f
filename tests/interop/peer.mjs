// The other side of tests/interop.rs, on an independent implementation of the Connect protocol.
//
//   node peer.mjs serve  DESCRIPTORS [CERT KEY]     prints its port, serves until stdin ends
//   node peer.mjs client DESCRIPTORS ECHO AGENT [CA] runs every case against two base URLs
//
// The client prints a line of JSON for each case: {"case": NAME} or {"case": NAME, "error": WHY}.
import { readFileSync } from "node:fs";
import * as http2 from "node:http2";
import { createFileRegistry, create, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { connectNodeAdapter, createConnectTransport, compressionGzip, Http2SessionManager } from "@connectrpc/connect-node";

const [mode, descriptors, ...rest] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const Echo = registry.getService("agentwire.interop.v1.EchoService");
const Trouble = registry.getMessage("agentwire.interop.v1.Trouble");
const Agent = registry.getService("agent.v1.AgentService");
// Beyond the 1,024 bytes from which on both sides compress.
const LONG = "all work and no play ".repeat(4000);

function equal(actual, expected, what) {
  const [a, e] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (a !== e) throw new Error(`${what}: ${a?.slice(0, 200)}, expected ${e?.slice(0, 200)}`);
}

// ---------------------------------------------------------------------------------------- server

let cancelled = 0;

function stated(code) {
  const detail = { desc: Trouble, value: { what: "told", number: -7 } };
  return new ConnectError("stated", code, { "x-error": "4" }, [detail]);
}

function hang(context) {
  return new Promise((_, reject) => {
    context.signal.addEventListener("abort", () => {
      cancelled += 1;
      reject(context.signal.reason);
    });
  });
}

const echo = {
  async unary(request, context) {
    context.responseHeader.set("x-head", "1");
    context.responseTrailer.set("x-trail", "3");
    if (request.text === "how many gave up?") return { text: String(cancelled) };
    if (request.hang) await hang(context);
    if (request.fail) throw stated(request.fail);
    return { text: request.text, asked: context.requestHeader.get("x-asked") ?? "" };
  },
  async *bidi(requests, context) {
    context.responseHeader.set("x-head", "1");
    context.responseTrailer.set("x-trail", "3");
    for await (const request of requests) {
      yield { text: request.text };
      if (request.hang) await hang(context);
      if (request.fail) throw stated(request.fail);
    }
  },
};

// A turn of agent.v1: it asks for the request context, waits for the answer, says what it learned.
const agent = {
  async *run(messages) {
    const inbox = messages[Symbol.asyncIterator]();
    const next = async (wanted) => {
      for (;;) {
        const { value, done } = await inbox.next();
        if (done) throw new ConnectError(`the client left before ${wanted}`, Code.Aborted);
        if (value.message.case === wanted) return value.message.value;
      }
    };
    const update = (message) => ({ message: { case: "interactionUpdate", value: { message } } });
    const run = await next("runRequest");
    yield update({ case: "thinkingDelta", value: { text: "hm" } });
    const question = { case: "requestContextArgs", value: {} };
    yield { message: { case: "execServerMessage", value: { id: 7, execId: "exec-7", message: question } } };
    const answer = await next("execClientMessage");
    equal([answer.id, answer.execId, answer.message.case], [7, "exec-7", "requestContextResult"], "the answer");
    const closed = await next("execClientControlMessage");
    equal([closed.message.case, closed.message.value.id], ["streamClose", 7], "the close");
    const said = run.action.action.value.userMessage.text;
    yield update({ case: "textDelta", value: { text: `You said ${said}. ` } });
    yield update({ case: "textDelta", value: { text: LONG } });
    yield update({ case: "turnEnded", value: { inputTokens: 11n, outputTokens: 5n } });
  },
  async nameAgent() {
    return { name: "Interop" };
  },
};

function serve(cert, key) {
  const handler = connectNodeAdapter({
    acceptCompression: [compressionGzip],
    routes: (router) => router.service(Echo, echo).service(Agent, agent),
  });
  const server = cert
    ? http2.createSecureServer({ cert: readFileSync(cert), key: readFileSync(key) }, handler)
    : http2.createServer(handler);
  server.listen(0, "127.0.0.1", () => console.log(server.address().port));
  process.stdin.resume().on("end", () => process.exit(0));
}

// ---------------------------------------------------------------------------------------- client

async function collect(stream) {
  const texts = [];
  for await (const message of stream) texts.push(message.text);
  return texts;
}

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error("no error came");
}

function judge(error) {
  equal([error.code, error.rawMessage], [Code.OutOfRange, "stated"], "the error");
  const [detail] = error.findDetails(Trouble);
  equal([detail?.what, detail?.number], ["told", -7], "the detail");
  equal(error.metadata.get("x-error"), "4", "metadata of the error");
}

// An async iterable that messages can be pushed into.
function queue() {
  const items = [];
  let wake = () => {};
  let ended = false;
  return {
    push: (item) => (items.push(item), wake()),
    end: () => ((ended = true), wake()),
    async *[Symbol.asyncIterator]() {
      for (;;) {
        while (items.length) yield items.shift();
        if (ended) return;
        await new Promise((resolve) => (wake = resolve));
      }
    },
  };
}

const echoCases = {
  async unary(client) {
    let head, trail;
    const answer = await client.unary({ text: "short" }, {
      headers: { "x-asked": "so" },
      onHeader: (headers) => (head = headers.get("x-head")),
      onTrailer: (trailers) => (trail = trailers.get("x-trail")),
    });
    equal([answer.text, answer.asked, head, trail], ["short", "so", "1", "3"], "the answer");
  },
  async unary_compressed(client) {
    equal((await client.unary({ text: LONG })).text, LONG, "the answer");
  },
  async unary_error_with_details(client) {
    judge(await failure(client.unary({ fail: Code.OutOfRange })));
  },
  async unary_deadline(client) {
    const error = await failure(client.unary({ hang: true }, { timeoutMs: 200 }));
    equal(error.code, Code.DeadlineExceeded, "the code");
  },
  async bidi_in_turns(client) {
    const requests = queue();
    let head, trail;
    const answers = client.bidi(requests, {
      onHeader: (headers) => (head = headers.get("x-head")),
      onTrailer: (trailers) => (trail = trailers.get("x-trail")),
    })[Symbol.asyncIterator]();
    for (let round = 0; round < 100; round += 1) {
      const text = round % 10 ? `${round}` : LONG;
      requests.push({ text });
      equal((await answers.next()).value.text, text, `round ${round}`);
    }
    requests.end();
    equal((await answers.next()).done, true, "the end");
    equal([head, trail], ["1", "3"], "headers and trailers");
  },
  async bidi_error_after_a_message(client) {
    const texts = [];
    const error = await failure((async () => {
      const requests = queue();
      requests.push({ text: "first", fail: Code.OutOfRange });
      for await (const message of client.bidi(requests)) texts.push(message.text);
    })());
    equal(texts, ["first"], "what came before the error");
    judge(error);
  },
  async cancel(client) {
    const count = async () => Number((await client.unary({ text: "how many gave up?" })).text);
    const before = await count();
    const gaveUp = new AbortController();
    const requests = queue();
    requests.push({ text: "first", hang: true });
    const answers = client.bidi(requests, { signal: gaveUp.signal })[Symbol.asyncIterator]();
    equal((await answers.next()).value.text, "first", "the first answer");
    gaveUp.abort();
    equal((await failure(answers.next())).code, Code.Canceled, "the code");
    // The server answers this once it has seen the other stream go, or never.
    while ((await count()) === before);
  },
};

const agentCases = {
  async agent_run(client) {
    const requests = queue();
    const text = "hello from another implementation";
    const userMessage = { text, messageId: "00000000-0000-4000-8000-000000000001" };
    requests.push({
      message: {
        case: "runRequest",
        value: {
          conversationId: "00000000-0000-4000-8000-000000000002",
          conversationState: {},
          action: { action: { case: "userMessageAction", value: { userMessage } } },
          modelDetails: { modelId: "composer-2" },
        },
      },
    });
    let said = "";
    let ended = false;
    for await (const { message } of client.run(requests)) {
      if (message.case === "kvServerMessage" && message.value.message.case === "setBlobArgs") {
        const result = { case: "setBlobResult", value: {} };
        requests.push({ message: { case: "kvClientMessage", value: { id: message.value.id, message: result } } });
      }
      if (message.case === "execServerMessage") {
        equal(message.value.message.case, "requestContextArgs", "what the assistant asks");
        const { id, execId } = message.value;
        const result = { case: "success", value: { requestContext: {} } };
        const answer = { case: "requestContextResult", value: { result } };
        requests.push({ message: { case: "execClientMessage", value: { id, execId, message: answer } } });
        const close = { case: "streamClose", value: { id } };
        requests.push({ message: { case: "execClientControlMessage", value: { message: close } } });
      }
      if (message.case !== "interactionUpdate") continue;
      const update = message.value.message;
      if (update.case === "textDelta") said += update.value.text;
      if (update.case === "turnEnded") {
        ended = true;
        requests.end();
      }
    }
    equal(ended, true, "turn_ended");
    equal(said.includes(text), true, "the assistant names what it was asked");
  },
  async agent_unary(client) {
    const answer = await client.getUsableModels({});
    equal(answer.models.length > 0, true, "models");
  },
};

async function run(echoUrl, agentUrl, ca) {
  const nodeOptions = ca ? { ca: readFileSync(ca) } : {};
  const sessions = [];
  const client = (service, baseUrl) => {
    const sessionManager = new Http2SessionManager(baseUrl, undefined, nodeOptions);
    sessions.push(sessionManager);
    const transport = createConnectTransport({
      baseUrl, httpVersion: "2", sessionManager, useBinaryFormat: true,
      sendCompression: service === Echo ? compressionGzip : undefined,
      acceptCompression: [compressionGzip],
    });
    return createClient(service, transport);
  };
  const groups = [[echoCases, client(Echo, echoUrl)], [agentCases, client(Agent, agentUrl)]];
  for (const [cases, connected] of groups) {
    for (const [name, play] of Object.entries(cases)) {
      const line = { case: name };
      try {
        await play(connected);
      } catch (error) {
        line.error = String(error?.stack ?? error);
      }
      console.log(JSON.stringify(line));
    }
  }
  sessions.forEach((session) => session.abort());
}

if (mode === "serve") serve(...rest);
else await run(...rest);
