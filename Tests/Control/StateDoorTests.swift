import CLinux
import Foundation
import Glibc
import Pipeline
import TestSupport
import Testing

@testable import PipelineAdmin
@testable import PipelineNode

/// A door that keeps what it gets, and answers when the test says so.
private final class FakeDoor: StateDoor {
    var pushRefusal: StateRefusal?
    /// What it answers; nil: not yet.
    var reply: ApplyAnswer?
    private(set) var got: [(bytes: [UInt8], push: StatePush)] = []
    private(set) var confirmed: [String] = []
    private(set) var discarded: [String] = []
    private var waiting: [(ApplyAnswer) -> Void] = []
    /// What it keeps of an upload; the memory is its own as long.
    var kept: StateUpload?
    var keeps = false
    var pieces: [[UInt8]]?
    var breaksOff = false

    func apply(_ upload: StateUpload, _ push: StatePush, answer: @escaping (ApplyAnswer) -> Void) {
        got.append((Array(upload.bytes), push))
        if keeps { kept = upload }
        waiting.append(answer)
        settle()
    }

    func confirm(_ id: String, _ push: StatePush, answer: @escaping (ApplyAnswer) -> Void) {
        confirmed.append(id)
        waiting.append(answer)
        settle()
    }

    func discard(_ id: String, _ push: StatePush, answer: @escaping (ApplyAnswer) -> Void) {
        discarded.append(id)
        waiting.append(answer)
        settle()
    }

    func settle() {
        guard let reply else { return }
        for answer in waiting { answer(reply) }
        waiting = []
    }

    func export() throws(StateRefusal) -> any StatePieces {
        guard let pieces else { throw StateRefusal("this node keeps nothing", remedy: "none") }
        return FakePieces(pieces, breaksOff: breaksOff)
    }
}

private final class FakePieces: StatePieces {
    private var left: [[UInt8]]
    private let breaksOff: Bool

    init(_ pieces: [[UInt8]], breaksOff: Bool) {
        left = pieces.reversed()
        self.breaksOff = breaksOff
    }

    func next() throws(StateRefusal) -> [UInt8] {
        if breaksOff, left.count == 1 { throw StateRefusal("the disk", remedy: "none") }
        return left.popLast() ?? []
    }
}

/// An admin socket whose loop is the test's own, so that its time is too.
private final class DoorSite {
    let path: String
    let door = FakeDoor()
    let uploads = UploadRoom()
    /// Another user than the one of the process.
    var peer: AdminPeer?
    private let server: AdminServer
    private let folder: String
    /// How far its clock is ahead.
    private var ahead: UInt32 = 0

    init() throws {
        let template = FileManager.default.temporaryDirectory.appendingPathComponent("pipelined-door-XXXXXX").path
        var name = Array(template.utf8CString)
        try #require(mkdtemp(&name) != nil)
        folder = String(decoding: name.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
        path = "\(folder)/admin.sock"
        server = try AdminServer(path: path, group: nil)
    }

    deinit { try? FileManager.default.removeItem(atPath: folder) }

    private var now: Instant { Instant(nanoseconds: cl_now()) + .seconds(ahead) }

    /// One iteration: what has come is served, or nothing came in a short time.
    func turn() {
        var items = server.waits(now)
        _ = cl_poll(&items, Int32(items.count), 5_000_000)
        server.serve(items[...], now) { line, peer in
            do throws(AdminRequest.Fault) {
                let (request, peer) = (try AdminRequest(line), self.peer ?? peer)
                if let change = request.command.change, !peer.mayChange {
                    let refusal = peer.refusal(of: change)
                    return AdminResponse(AdminResponse.failure(refusal.problem, refusal.remedy))
                }
                return StateCommands(door: door, uploads: uploads, peer: peer).answer(request)
            } catch {
                return AdminResponse(AdminResponse.failure(error.problem, error.remedy))
            }
        }
        door.settle()
    }

    func turn(until what: String, _ isSo: () -> Bool) throws {
        let deadline = Deadline()
        while !isSo() {
            guard !deadline.hasPassed else { throw Failure("not in time: \(what)") }
            turn()
        }
    }

    func pass(seconds: UInt32) { ahead += seconds }

    var nextDeadline: TimeSpan? { server.nextDeadline(now)?.since(now) }

    /// What a command gets, beside the loop.
    func ask(_ command: AdminRequest.Command, body: [UInt8] = [], isText: Bool = true) throws -> AdminConnection.Answer
    {
        try finish(begin(command, body: body, isText: isText))
    }

    struct Asking {
        let promise: Promise<AdminConnection.Answer>
        let isOver: Flag
    }

    func begin(_ command: AdminRequest.Command, body: [UInt8] = [], isText: Bool = true) -> Asking {
        let (path, isOver) = (path, Flag())
        let promise = concurrently {
            defer { isOver.set() }
            return try AdminConnection.ask(AdminRequest(command, isText: isText), body: body, at: path)
        }
        return Asking(promise: promise, isOver: isOver)
    }

    func finish(_ asking: Asking) throws -> AdminConnection.Answer {
        try turn(until: "an answer") { asking.isOver.isSet }
        return try asking.promise.value()
    }
}

/// A client that does not behave.
private final class RawClient {
    let fd: Int32

    init(_ path: String) throws {
        fd = cl_unix_connect(path, 0)
        if fd < 0 { throw Failure("no connection: \(fd)") }
    }

    deinit { close(fd) }

    func send(_ text: String) { _ = Glibc.send(fd, text, text.utf8.count, Int32(MSG_NOSIGNAL)) }

    /// What has come; nil: the end.
    func receive() -> String? {
        var room = [UInt8](repeating: 0, count: 65536)
        let count = recv(fd, &room, room.count, 0)
        if count == 0 || (count < 0 && errno != EAGAIN) { return nil }
        return String(decoding: room[..<max(0, count)], as: UTF8.self)
    }

    /// All until the end, while the node's loop turns.
    func receive(_ site: DoorSite) throws -> String {
        var all = ""
        try site.turn(until: "the end of an answer") {
            guard let more = receive() else { return true }
            all += more
            return false
        }
        return all
    }
}

@Suite("Pushes and exports over the admin socket")
struct StateDoorTests {
    private func text(_ answer: AdminConnection.Answer) -> String { String(decoding: answer.bytes, as: UTF8.self) }

    private func apply(_ bytes: [UInt8], isOlder: Bool = false) -> AdminRequest.Command {
        .apply(length: bytes.count, isOlder: isOlder)
    }

    @Test("R22: a push of any size comes whole, with who pushed it")
    func sizes() throws {
        let site = try DoorSite()
        site.door.reply = ApplyAnswer(.applied, revision: 7, message: "1 object put")
        for count in [1, 2, 65536, 65537, 300_000, 5_000_000] {
            let body = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
            let answer = try site.ask(apply(body, isOlder: count == 2), body: body)
            #expect(answer.exit == 0 && text(answer) == "applied: 1 object put\n")
            #expect(site.door.got.last?.bytes == body)
            #expect(site.door.got.last?.push.isOlder == (count == 2))
        }
        #expect(site.door.got.count == 6)
    }

    @Test("each outcome has its exit code, and says why, as text and as JSON")
    func outcomes() throws {
        let site = try DoorSite()
        let many = (0..<103).map { "route \"r\($0)\": no\u{1B}[31m" }
        let cases: [(ApplyAnswer, Int32, String)] = [
            (ApplyAnswer(.applied, revision: 3, message: "fine"), 0, "applied: fine\n"),
            (ApplyAnswer(.refused, revision: nil, message: "no"), 1, "refused: no\n"),
            (ApplyAnswer(.held(id: "h1"), revision: 3, message: "it shrinks"), 4, "held as h1: it shrinks\n"),
            (
                ApplyAnswer(.discarded, revision: 3, message: "h1 comes to nothing"), 0,
                "discarded: h1 comes to nothing\n"
            ),
            (
                ApplyAnswer(.quarantined, revision: 3, message: "but", details: many), 5,
                "quarantined: but\n"
                    + many.prefix(100).map { "  \($0.replacing("\u{1B}", with: "\u{FFFD}"))\n" }.joined()
                    + "  and 3 more\n"
            ),
        ]
        for (reply, exit, words) in cases {
            site.door.reply = reply
            let answer = try site.ask(apply([1]), body: [1])
            #expect(answer.exit == exit && text(answer) == words)
            let json = try site.ask(.confirm(id: "h1"), isText: false)
            let object = try #require(try JSONSerialization.jsonObject(with: Data(json.bytes)) as? [String: Any])
            #expect(json.exit == exit && object["message"] as? String == reply.message)
            #expect(object["revision"] as? Int == reply.revision.map { Int($0) })
            #expect(object["id"] as? String == (exit == 4 ? "h1" : nil))
            #expect((object["details"] as? [String])?.count == min(100, reply.details.count))
            #expect(object["omitted"] as? Int == max(0, reply.details.count - 100))
        }
        #expect(site.door.confirmed == ["h1", "h1", "h1", "h1", "h1"] && site.door.discarded == [])
        _ = try site.ask(.discard(id: "h2"), isText: false)
        #expect(site.door.discarded == ["h2"])
    }

    @Test("a push is answered when the node is done with it; others are served meanwhile")
    func later() throws {
        let site = try DoorSite()
        let asking = site.begin(apply([1, 2, 3]), body: [1, 2, 3])
        try site.turn(until: "the push") { site.door.got.count == 1 }
        site.pass(seconds: 600)
        #expect(site.nextDeadline == nil)
        site.door.pieces = [Array("{}\n".utf8)]
        #expect(text(try site.ask(.exportState)) == "{}\n")
        #expect(!asking.isOver.isSet)
        site.door.reply = ApplyAnswer(.applied, revision: nil, message: "late")
        #expect(text(try site.finish(asking)) == "applied: late\n")
    }

    @Test("a client that goes before its answer does no harm")
    func gone() throws {
        let site = try DoorSite()
        do {
            let client = try RawClient(site.path)
            client.send("{\"command\":\"apply\",\"length\":1}\n1")
            try site.turn(until: "the push") { site.door.got.count == 1 }
        }
        site.turn()
        site.door.reply = ApplyAnswer(.applied, revision: nil, message: "nobody reads this")
        #expect(try site.ask(apply([9]), body: [9]).exit == 0)
    }

    @Test("R27: one large push at a time, until the node has let go of it; small ones beside it")
    func room() throws {
        let site = try DoorSite()
        site.door.keeps = true
        let large = [UInt8](repeating: 1, count: 65537)
        let first = site.begin(apply(large), body: large)
        try site.turn(until: "the push") { site.door.got.count == 1 }
        let second = try site.ask(apply(large), body: large)
        #expect(second.exit == 1 && second.isError && text(second).contains("another large document"))
        site.door.keeps = false
        site.door.reply = ApplyAnswer(.applied, revision: nil, message: "fine")
        #expect(try site.finish(first).exit == 0)
        #expect(try site.ask(apply([1]), body: [1]).exit == 0)
        #expect(try site.ask(apply(large), body: large).exit == 1)
        site.door.kept = nil
        #expect(try site.ask(apply(large), body: large).exit == 0)
    }

    @Test("R27: a push that stops, or comes in drops, is ended with a reason, and the place is free again")
    func slow() throws {
        let site = try DoorSite()
        let silent = try RawClient(site.path)
        silent.send("{\"command\":\"apply\",\"length\":100000}\n{")
        for _ in 0..<3 { site.turn() }
        site.pass(seconds: 4)
        for _ in 0..<3 { site.turn() }
        #expect(silent.receive() == "")
        site.pass(seconds: 2)
        #expect(try silent.receive(site).contains("too slow: 1 of 100000 bytes came in time"))

        let drops = try RawClient(site.path)
        drops.send("{\"command\":\"apply\",\"length\":100000}\n")
        site.turn()
        var said = ""
        for _ in 0..<20 where said.isEmpty {
            drops.send("x")
            for _ in 0..<3 { site.turn() }
            site.pass(seconds: 4)
            said = drops.receive() ?? "over"
        }
        #expect(said.contains("too slow: "), "\(said)")
        site.door.reply = ApplyAnswer(.applied, revision: nil, message: "fine")
        let large = [UInt8](repeating: 1, count: 70000)
        #expect(try site.ask(apply(large), body: large).exit == 0)
        #expect(site.door.got.count == 1)
    }

    @Test("a push that ends early, or is none, is refused, and the node gets nothing")
    func broken() throws {
        let site = try DoorSite()
        for (request, part) in [
            ("{\"command\":\"apply\",\"length\":10}\n123", "ended after 3 of 10 bytes"),
            ("{\"command\":\"apply\",\"length\":0}\n", "length, confirm or discard is wrong"),
            ("{\"command\":\"apply\"}\n", "length, confirm or discard is wrong"),
            ("{\"command\":\"apply\",\"length\":268435457}\n", "length, confirm or discard is wrong"),
            ("{\"command\":\"apply\",\"length\":1,\"confirm\":\"a\"}\n", "length, confirm or discard is wrong"),
            ("{\"command\":\"apply\",\"confirm\":true}\n", "length, confirm or discard is wrong"),
            ("{\"command\":\"apply\",\"length\":1,\"older\":1}\n", "older is not a bool"),
        ] {
            let client = try RawClient(site.path)
            client.send(request)
            shutdown(client.fd, Int32(SHUT_WR))
            let said = try client.receive(site)
            #expect(said.hasPrefix("{\"error\":") && said.contains(part), "\(request): \(said)")
        }
        #expect(site.door.got.isEmpty)
        // More than was announced is nobody's.
        site.door.reply = ApplyAnswer(.applied, revision: nil, message: "fine")
        let client = try RawClient(site.path)
        client.send("{\"command\":\"apply\",\"length\":3}\n12345")
        #expect(try client.receive(site).contains("\"outcome\":\"applied\""))
        #expect(site.door.got.map(\.bytes) == [Array("123".utf8)])
    }

    @Test("only the node's user and root may push; anybody who may connect may export")
    func users() throws {
        let site = try DoorSite()
        site.door.reply = ApplyAnswer(.applied, revision: nil, message: "fine")
        site.door.pieces = [Array("{}\n".utf8)]
        for (user, mayPush) in [(0, true), (geteuid(), true), (54321, false), (nil, false)] as [(UInt32?, Bool)] {
            site.peer = AdminPeer(user: user)
            let large = [UInt8](repeating: 1, count: 3_000_000)
            for command in [apply(large), .confirm(id: "h")] {
                let answer = try site.ask(command, body: command == apply(large) ? large : [])
                #expect((answer.exit == 0) == mayPush)
                #expect(
                    mayPush
                        || text(answer).contains(
                            "uid \(user.map { "\($0)" } ?? "unknown") may read here, but not apply")
                )
            }
            #expect(try site.ask(.exportState).exit == 0)
        }
        #expect(site.door.got.count == 2)
    }

    @Test("a node that takes no push says so before it is sent")
    func refused() throws {
        let site = try DoorSite()
        site.door.pushRefusal = StateRefusal("the routes of this node come from /x", remedy: "change it")
        let large = [UInt8](repeating: 1, count: 5_000_000)
        let answer = try site.ask(apply(large), body: large)
        #expect(answer.exit == 1 && text(answer) == "error: the routes of this node come from /x; change it\n")
        #expect(site.door.got.isEmpty)
    }

    @Test("an export comes in pieces; one that breaks off is no answer")
    func exports() throws {
        let site = try DoorSite()
        let none = try site.ask(.exportState)
        #expect(none.exit == 1 && none.isError && text(none).contains("keeps nothing"))
        let piece = [UInt8](repeating: 0x20, count: 100_000)
        site.door.pieces = [Array("{".utf8)] + Array(repeating: piece, count: 30) + [Array("}\n".utf8)]
        let whole = try site.ask(.exportState)
        #expect(whole.exit == 0 && whole.bytes.count == 3_000_003)
        site.door.breaksOff = true
        #expect(throws: AdminConnection.Unreachable.self) { try site.ask(.exportState) }
    }
}
