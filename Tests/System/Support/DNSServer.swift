import Foundation
import Glibc
import Synchronization
import TestSupport

/// A small DNS server of the test's own, over UDP and TCP at one place.
final class DNSServer: Sendable {
    enum Record: Equatable, Sendable {
        case a(String)
        case aaaa(String)
        case cname(String)
        case srv(priority: UInt16, weight: UInt16, port: UInt16, target: String)

        var type: UInt16 {
            switch self {
            case .a: 1
            case .cname: 5
            case .aaaa: 28
            case .srv: 33
            }
        }

        var data: [UInt8] {
            switch self {
            case .a(let text):
                var raw = in_addr()
                inet_pton(AF_INET, text, &raw)
                return withUnsafeBytes(of: raw) { Array($0) }
            case .aaaa(let text):
                var raw = in6_addr()
                inet_pton(AF_INET6, text, &raw)
                return withUnsafeBytes(of: raw) { Array($0) }
            case .cname(let target): return DNSServer.name(target)
            case .srv(let priority, let weight, let port, let target):
                return [priority, weight, port].flatMap { DNSServer.bytes($0) } + DNSServer.name(target)
            }
        }
    }

    enum Mood: Equatable, Sendable { case answers, silent, fails }

    struct State: Sendable {
        var zone: [String: [Record]] = [:]
        var mood = Mood.answers
        var ttl: UInt32 = 0
        /// Questions so far, by transport.
        var overUDP = 0
        var overTCP = 0
    }

    let place: Place
    private let state: Mutex<State>
    private let stop = Flag()
    private let server: Server

    init(_ zone: [String: [Record]], at place: Place? = nil) throws {
        let place = try place ?? Place("127.0.0.1", FreePort.take())
        self.place = place
        state = Mutex(State(zone: zone))
        let fd = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard fd >= 0, try place.withAddress({ bind(fd, $0, $1) }) == 0 else { throw Failure(call: "bind \(place)") }
        let answer = Weak()
        server = try Server(place.host, port: place.port) { socket in
            while true {
                let head = try socket.receive(exactly: 2)
                let question = try socket.receive(exactly: Int(head[0]) << 8 | Int(head[1]))
                guard let message = answer.server?.answer(question, limit: 65535) else { return }
                try socket.send(DNSServer.bytes(UInt16(message.count)) + message)
            }
        }
        answer.server = self
        let stop = stop
        Thread.detachNewThread {
            DNSServer.serve(fd, stop) { answer.server?.answer($0, limit: 512) }
            close(fd)
        }
    }

    deinit { stop.set() }

    private final class Weak: @unchecked Sendable {
        private let lock = NSLock()
        private weak var held: DNSServer?
        var server: DNSServer? {
            get { lock.withLock { held } }
            set { lock.withLock { held = newValue } }
        }
    }

    func change(_ body: @Sendable (inout State) -> Void) { state.withLock { body(&$0) } }
    var questions: (udp: Int, tcp: Int) { state.withLock { ($0.overUDP, $0.overTCP) } }

    /// Returns once so many more questions were asked, answered or not.
    func waitForQuestions(_ count: Int) throws {
        let before = questions.udp
        try awaitUntil("\(count) questions") { questions.udp >= before + count }
    }

    // MARK: Wire

    private static func serve(_ fd: Int32, _ stop: Flag, _ answer: ([UInt8]) -> [UInt8]?) {
        var buffer = [UInt8](repeating: 0, count: 4096)
        var peer = sockaddr_storage()
        while !stop.isSet {
            var polled = pollfd(fd: fd, events: Int16(POLLIN), revents: 0)
            guard poll(&polled, 1, 200) > 0 else { continue }
            var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            withUnsafeMutablePointer(to: &peer) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                    let count = recvfrom(fd, &buffer, buffer.count, 0, address, &length)
                    guard count > 0, let message = answer(Array(buffer[..<count])) else { return }
                    sendto(fd, message, message.count, 0, address, length)
                }
            }
        }
    }

    fileprivate static func bytes(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xFF)] }

    fileprivate static func name(_ text: String) -> [UInt8] {
        text.split(separator: ".").flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) } + [0]
    }

    /// Nil: none is given. One that is longer is cut.
    private func answer(_ question: [UInt8], limit: Int) -> [UInt8]? {
        guard question.count > 17, let end = question[12...].firstIndex(of: 0), end + 5 <= question.count else {
            return nil
        }
        var labels: [String] = []
        var place = 12
        while place < end {
            let length = Int(question[place])
            labels.append(String(decoding: question[(place + 1)..<(place + 1 + length)], as: UTF8.self))
            place += 1 + length
        }
        let type = UInt16(question[end + 1]) << 8 | UInt16(question[end + 2])
        let asked = labels.joined(separator: ".").lowercased()
        return state.withLock { state in
            if limit == 512 { state.overUDP += 1 } else { state.overTCP += 1 }
            switch state.mood {
            case .silent: return nil
            case .fails: return message(question, end, [], code: 2, state.ttl, limit)
            case .answers: break
            }
            guard let records = state.zone[asked] else { return message(question, end, [], code: 3, state.ttl, limit) }
            let fitting = records.filter { $0.type == type || $0.type == 5 }
            return message(question, end, fitting, code: 0, state.ttl, limit)
        }
    }

    private func message(
        _ question: [UInt8], _ end: Int, _ records: [Record], code: UInt8, _ ttl: UInt32, _ limit: Int
    ) -> [UInt8] {
        let tail = Array(question[12...(end + 4)])
        var body: [UInt8] = []
        for record in records {
            let data = record.data
            body += [0xC0, 12] + Self.bytes(record.type) + Self.bytes(1)
            body += Self.bytes(UInt16(ttl >> 16)) + Self.bytes(UInt16(ttl & 0xFFFF))
            body += Self.bytes(UInt16(data.count)) + data
        }
        let isCut = 12 + tail.count + body.count > limit
        let flags: [UInt8] = [isCut ? 0x86 : 0x84, 0x80 | code]
        let count = Self.bytes(isCut ? 0 : UInt16(records.count))
        return Array(question[..<2]) + flags + [0, 1] + count + [0, 0, 0, 0] + tail + (isCut ? [] : body)
    }
}
