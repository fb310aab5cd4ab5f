// Splits a body the way one writes first (a new buffer for each chunk) and decodes with protobuf-es.
// Prints the least nanoseconds a message over the rounds.
import { readFileSync } from "node:fs";

const [input, size, count, protobuf] = process.argv.slice(2);
const { createFileRegistry, create, fromBinary } = await import(`${protobuf}/index.js`);
const { FileDescriptorProtoSchema, FieldDescriptorProto_Type: Type, FieldDescriptorProto_Label: Label } =
  await import(`${protobuf}/wkt/index.js`);

const field = (name, number, type, typeName, oneofIndex) =>
  ({ name, number, type, label: Label.OPTIONAL, ...(typeName && { typeName }), ...(oneofIndex !== undefined && { oneofIndex }) });
const file = create(FileDescriptorProtoSchema, {
  name: "hot.proto", package: "hot", syntax: "proto3",
  messageType: [
    { name: "Server", oneofDecl: [{ name: "message" }], field: [field("interaction_update", 1, Type.MESSAGE, ".hot.Update", 0)] },
    { name: "Update", oneofDecl: [{ name: "message" }], field: [
      field("text_delta", 1, Type.MESSAGE, ".hot.Text", 0), field("thinking_delta", 4, Type.MESSAGE, ".hot.Text", 0)] },
    { name: "Text", field: [field("text", 1, Type.STRING)] },
  ],
});
const schema = createFileRegistry(file, () => undefined).getMessage("hot.Server");

function run(body) {
  let rest = new Uint8Array(0);
  let sum = 0;
  for (let at = 0; at < body.length; at += Number(size)) {
    const chunk = body.subarray(at, at + Number(size));
    const buffer = new Uint8Array(rest.length + chunk.length);
    buffer.set(rest);
    buffer.set(chunk, rest.length);
    let from = 0;
    while (buffer.length - from >= 5) {
      const length = new DataView(buffer.buffer, from + 1, 4).getUint32(0);
      if (buffer.length - from - 5 < length) break;
      const payload = buffer.slice(from + 5, from + 5 + length);
      sum += fromBinary(schema, payload).message.value.message.value.text.length;
      from += 5 + length;
    }
    rest = buffer.slice(from);
  }
  return sum;
}

const body = readFileSync(input);
let least = Infinity;
for (let round = 0; round < 60; round += 1) {
  const start = process.hrtime.bigint();
  if (run(body) === 0) throw new Error("nothing was decoded");
  least = Math.min(least, Number(process.hrtime.bigint() - start));
}
console.log(least / Number(count));
