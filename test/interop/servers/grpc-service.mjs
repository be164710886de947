/** A service by hand, as it would be made from a file of Protocol Buffers, but with messages in JSON. */
const serialize = (message) => Buffer.from(JSON.stringify(message));
const deserialize = (bytes) => JSON.parse(bytes.toString());

export const service = {
  wait: {
    path: "/allstop.Waiter/Wait",
    requestStream: false,
    responseStream: false,
    requestSerialize: serialize,
    requestDeserialize: deserialize,
    responseSerialize: serialize,
    responseDeserialize: deserialize,
  },
};
