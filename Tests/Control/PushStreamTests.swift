import Foundation
import Pipeline
import TestSupport
import Testing

@testable import PipelineAdmin
@testable import PipelineNode

/// A door whose answers the test gives, in any order.
private final class SlowDoor: StateDoor {
    var pushRefusal: StateRefusal?
    private(set) var got: [(text: String, isOlder: Bool)] = []
    private(set) var answers: [(ApplyAnswer) -> Void] = []

    func apply(_ upload: StateUpload, _ push: StatePush, answer: @escaping (ApplyAnswer) -> Void) {
        got.append((String(decoding: upload.bytes, as: UTF8.self), push.isOlder))
        answers.append(answer)
    }
    func confirm(_ id: String, _ push: StatePush, answer: @escaping (ApplyAnswer) -> Void) {}
    func discard(_ id: String, _ push: StatePush, answer: @escaping (ApplyAnswer) -> Void) {}
    func export() throws(StateRefusal) -> any StatePieces { throw StateRefusal("no", remedy: "none") }

    func answer(_ number: Int) { answers[number](ApplyAnswer(.applied, revision: UInt64(number), message: "fine")) }
}

@Suite("R22, R27: pushes one behind the other on a connection")
struct PushStreamTests {
    private let door = SlowDoor()
    private let peer = AdminPeer(user: 0)

    private func stream(_ length: Int, isOlder: Bool = false) -> PushStream {
        PushStream(door, UploadRoom(), peer, length: length, isOlder: isOlder)
    }
    private func give(_ stream: PushStream, _ text: String) {
        Array(text.utf8).withUnsafeBytes { stream.take($0) }
    }
    private func request(_ body: String, _ more: String = ",\"more\":true") -> String {
        "{\"command\":\"apply\",\"length\":\(body.utf8.count)\(more)}\n\(body)"
    }

    /// All that it has to say, `limit` bytes at a time.
    private func said(_ stream: PushStream, limit: Int = .max) -> [String] {
        var all: [UInt8] = []
        while stream.hasAnswers {
            _ = stream.give { bytes in
                all += bytes.prefix(limit)
                return min(limit, bytes.count)
            }
        }
        return String(decoding: all, as: UTF8.self).split(separator: "\n").map(String.init)
    }

    @Test("answers come in the order of the pushes, whenever the node has them, however the bytes are cut")
    func order() throws {
        let text = "one" + request("two\n{}", ",\"more\":true,\"older\":true") + request("three") + request("4", "")
        for cut in 1...text.utf8.count {
            let door = SlowDoor()
            let stream = PushStream(door, UploadRoom(), peer, length: 3, isOlder: false)
            let bytes = Array(text.utf8)
            for start in stride(from: 0, to: bytes.count, by: cut) {
                bytes[start..<min(start + cut, bytes.count)].withUnsafeBytes { stream.take($0) }
            }
            #expect(door.got.map(\.text) == ["one", "two\n{}", "three", "4"])
            #expect(door.got.map(\.isOlder) == [false, true, false, false])
            #expect(!stream.isReading && !stream.isOver && !stream.hasAnswers && stream.patience == nil)
            for number in [2, 1] { door.answer(number) }
            #expect(!stream.hasAnswers)
            door.answer(0)
            #expect(stream.hasAnswers && stream.patience == AdminServer.idleLimit)
            let first = said(stream, limit: cut)
            door.answer(3)
            let all = first + said(stream, limit: cut)
            #expect(all.map { $0.contains("\"outcome\":\"applied\"") } == [true, true, true, true])
            #expect(all.enumerated().allSatisfy { $0.element.contains("\"revision\":\($0.offset),") })
            #expect(stream.isOver)
        }
    }

    @Test("a client that ends early, says what is no push, or too much of it, is told so once the others are answered")
    func broken() {
        for (text, part) in [
            ("{\"command\":\"apply\",\"length\":10,\"more\":true}\n123", "ended after 3 of 10 bytes"),
            ("{\"command\":\"apply\"", "ended early"),
            ("{\"command\":\"status\"}\n", "behind a push comes another one"),
            ("nothing\n", "not a JSON object"), (String(repeating: " ", count: 70_000), "more than 65536 bytes"),
        ] {
            let door = SlowDoor()
            let stream = PushStream(door, UploadRoom(), peer, length: 1, isOlder: false)
            give(stream, "1" + text)
            stream.end()
            #expect(!stream.isReading && !stream.isOver && !stream.hasAnswers)
            give(stream, request("late"))
            #expect(door.got.count == 1)
            door.answer(0)
            let all = said(stream)
            #expect(all.count == 2 && all[0].contains("applied") && all[1].contains(part), "\(all)")
            #expect(stream.isOver)
        }
        let stream = stream(1)
        give(stream, "1")
        stream.end()
        door.answer(0)
        #expect(said(stream).count == 1 && stream.isOver)
    }

    @Test("what is refused before it comes is passed over, and the next one is taken")
    func refused() {
        let room = UploadRoom()
        let stream = PushStream(door, room, peer, length: 1, isOlder: false)
        give(stream, "1")
        let large = String(repeating: "x", count: 70_000)
        give(stream, request(large))
        give(stream, request(large))
        give(stream, request("2"))
        #expect(door.got.count == 4)
        door.pushRefusal = StateRefusal("the routes come from elsewhere", remedy: "see there")
        give(stream, request("3"))
        door.pushRefusal = nil
        give(stream, request("4"))
        #expect(door.got.last?.text == "4" && door.got.count == 5)
        for number in 0..<5 { door.answer(number) }
        let all = said(stream)
        #expect(all.count == 6 && all[4].contains("come from elsewhere") && all[5].contains("applied"), "\(all)")
    }

    @Test("R27: nothing more is read of a client that has enough on its way, or leaves its answers unread")
    func bounds() {
        let stream = stream(1)
        give(stream, "1")
        for _ in 1..<PushStream.mostOnTheWay {
            #expect(stream.isReading)
            give(stream, request("{}"))
        }
        #expect(!stream.isReading && stream.patience == nil && door.got.count == PushStream.mostOnTheWay)
        door.answer(0)
        #expect(stream.isReading)
        for number in 1..<PushStream.mostOnTheWay { door.answer(number) }
        // It takes none of them, and goes on.
        var number = door.got.count
        while stream.isReading {
            give(stream, request("{}"))
            door.answer(number)
            number += 1
        }
        #expect(number < 40_000 && stream.patience == AdminServer.idleLimit)
        #expect(said(stream).count == number && stream.isReading && stream.patience == AdminServer.streamLimit)
    }

    @Test("objects that stand one behind the other are cut, whatever is in their strings, however they come")
    func splitting() throws {
        let objects = [
            "{}", "{\"a\":\"}{\\\"\\\\\"}", "{\"a\":[{\"b\":[]},\"]\"],\n \"c\":{}}", "{\"é\":\"\\u007d\"}",
        ]
        for joint in ["", "\n", " \r\n\t", "\u{1E}"] {
            let bytes = Array((joint + objects.joined(separator: joint) + joint).utf8)
            for cut in [1, 2, 3, 7, bytes.count] {
                var (splitter, found) = (ChangeSplitter(limit: 100), [String]())
                for start in stride(from: 0, to: bytes.count, by: cut) {
                    try splitter.take(bytes[start..<min(start + cut, bytes.count)]) {
                        found.append(String(decoding: $0, as: UTF8.self))
                    }
                }
                #expect(found == objects && !splitter.isWithinObject)
            }
        }
        for (text, problem) in [
            ("{} x", "byte 4 is not the beginning of a JSON object"), ("[{}]", "byte 1 is not"),
            ("{" + String(repeating: " ", count: 100), "an object has more than 100 bytes"),
        ] {
            var splitter = ChangeSplitter(limit: 100)
            do {
                try splitter.take(Array(text.utf8)) { _ in }
                Issue.record("\(text) is taken")
            } catch let fault as ChangeSplitter.Fault {
                #expect(fault.problem.hasPrefix(problem))
            }
        }
    }
}
