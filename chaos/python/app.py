"""An app without Magnetar's SDK: stubs made by the stock generator, nothing else.

Publishes messages, consumes them on a subscription, acknowledges half of them, comes back on a new stream and gets the
other half. With "zlib" the messages are compressed, and those of the topic OTHER, whoever has published them, are consumed.
Prints one JSON line.

usage: app.py STUBS_FOLDER HOST:PORT TOPIC [zlib OTHER]
"""

import json
import queue
import sys
import zlib

sys.path.insert(0, sys.argv[1])

import grpc  # noqa: E402
from magnetar.v1 import broker_pb2, broker_pb2_grpc, common_pb2, message_pb2  # noqa: E402

TIMEOUT_SECONDS = 20
MESSAGES = 10


class Stream:
    """One bidirectional stream: send frames, take the next frame that `wanted` accepts."""

    def __init__(self, method, first):
        self._requests = queue.Queue()
        self._requests.put(first)
        self._responses = method(iter(self._requests.get, None), timeout=TIMEOUT_SECONDS)

    def send(self, frame):
        self._requests.put(frame)

    def frames(self):
        return self._responses

    def close(self):
        self._requests.put(None)
        for _ in self._responses:
            pass


def hello():
    return common_pb2.ClientHello(protocol_version=1, client="python-app")


def publish(stub, topic, compressed):
    stream = Stream(
        stub.Publish,
        broker_pb2.PublishRequest(
            hello=hello(),
            opens=[broker_pb2.OpenProducer(producer=1, topic=topic, name="python", instance=b"app-1")],
        ),
    )
    receipts = []
    for frame in stream.frames():
        for opened in frame.opened:
            assert not opened.HasField("error"), opened.error
            for first in range(0, MESSAGES, 5):
                messages = [
                    message_pb2.Message(
                        payload=b"message %d" % (first + i),
                        key="k%d" % (first + i),
                        properties=[message_pb2.Property(name="n", value=str(first + i))],
                    )
                    for i in range(5)
                ]
                area = message_pb2.Messages(messages=messages).SerializeToString()
                compression = {"payload": area}
                if compressed:
                    compression = {
                        "compression": message_pb2.COMPRESSION_ZLIB,
                        "uncompressed_size": len(area),
                        "payload": zlib.compress(area),
                    }
                block = message_pb2.ProducerBlock(
                    producer_name=opened.name,
                    producer_epoch=opened.epoch,
                    first_sequence_id=first,
                    last_sequence_id=first + 4,
                    count=5,
                    publish_time=1_700_000_000_000,
                    **compression,
                )
                batch = broker_pb2.PublishBatch(producer=1, block=block.SerializeToString())
                stream.send(broker_pb2.PublishRequest(batches=[batch]))
        for receipt in frame.receipts:
            assert not receipt.HasField("error"), receipt.error
            receipts.append({"index": receipt.index, "count": receipt.count, "duplicate": receipt.duplicate})
        if len(receipts) == MESSAGES // 5:
            break
    stream.close()
    return receipts


def payload_area(block):
    if block.compression == message_pb2.COMPRESSION_NONE:
        return block.payload
    assert block.compression == message_pb2.COMPRESSION_ZLIB, block.compression
    area = zlib.decompressobj().decompress(block.payload, block.uncompressed_size)
    assert len(area) == block.uncompressed_size
    return area


def consume(stub, topic, ack_every, stop_after):
    """Takes messages until `stop_after` have come; acknowledges each whose index is divisible by `ack_every`."""
    stream = Stream(
        stub.Consume,
        broker_pb2.ConsumeRequest(
            hello=hello(),
            subscribes=[
                broker_pb2.Subscribe(
                    consumer=7,
                    topic=topic,
                    subscription="python-sub",
                    start=broker_pb2.Position(earliest=True),
                )
            ],
        ),
    )
    got, acked, durable = [], 0, 0
    for frame in stream.frames():
        for subscribed in frame.subscribed:
            assert not subscribed.HasField("error"), subscribed.error
            stream.send(
                broker_pb2.ConsumeRequest(flows=[broker_pb2.Flow(consumer=7, messages=1000, bytes=1 << 20)])
            )
        for delivery in frame.deliveries:
            block = message_pb2.ProducerBlock.FromString(delivery.block)
            messages = message_pb2.Messages.FromString(payload_area(block)).messages
            assert len(messages) == block.count
            for i, message in enumerate(messages):
                if len(delivery.skip) > i // 8 and delivery.skip[i // 8] >> (i % 8) & 1:
                    continue
                index = delivery.index + i
                got.append({"index": index, "payload": message.payload.decode(), "key": message.key})
                if index % ack_every == 0:
                    acked += 1
                    ack = broker_pb2.Ack(consumer=7, ack_id=acked, ranges=[index, 1])
                    stream.send(broker_pb2.ConsumeRequest(acks=[ack]))
        for receipt in frame.ack_receipts:
            assert not receipt.HasField("error"), receipt.error
            durable = max(durable, receipt.ack_id)
        if len(got) >= stop_after and durable == acked:
            break
    stream.close()
    return got


def main():
    with grpc.insecure_channel(sys.argv[2]) as channel:
        stub = broker_pb2_grpc.BrokerStub(channel)
        topic = sys.argv[3]
        compressed = len(sys.argv) > 4 and sys.argv[4] == "zlib"
        result = {
            "receipts": publish(stub, topic, compressed),
            "again": publish(stub, topic, compressed),
            "first": consume(stub, topic, 2, MESSAGES),
            "second": consume(stub, topic, 1, MESSAGES // 2),
        }
        if compressed:
            result["other"] = consume(stub, sys.argv[5], 1, MESSAGES)
    print(json.dumps(result))


main()
