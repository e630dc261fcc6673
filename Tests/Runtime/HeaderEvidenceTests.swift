import Pipeline
import Testing

@testable import PipelineRuntime

@Suite("What a backend says to a PROXY header")
struct AnswerTests {
    private func outcome(_ text: [UInt8], cut: Int) -> AnswerMatcher.Outcome {
        var matcher = AnswerMatcher()
        var last = AnswerMatcher.Outcome.undecided
        for piece in [text.prefix(cut), text.dropFirst(cut)] {
            last = Array(piece).withUnsafeBytes { matcher.read($0) }
            if last == .rejection || last == .unclear { return last }
        }
        return last
    }

    private func expect(_ texts: [[UInt8]], _ wanted: AnswerMatcher.Outcome) {
        for text in texts {
            for cut in 0...text.count { #expect(outcome(text, cut: cut) == wanted, "\(text), cut at \(cut)") }
        }
    }

    private func alert(_ description: UInt8, level: UInt8 = 2) -> [UInt8] { [0x15, 3, 3, 0, 2, level, description] }

    @Test("R18: alerts for junk and HTTP 400 are rejections, however they are cut; other answers are not")
    func answers() {
        expect([10, 20, 22, 47, 50, 70].map { alert($0) }, .rejection)
        expect(["HTTP/1.1 400 Bad", "HTTP/1.0 400"].map { Array($0.utf8) }, .rejection)
        let others = ["HTTP/1.1 200 OK", "HTTP/2.0 400", "HTTP/1.2 400", "HTTP/1.1 401 x", "\u{15}x"]
        expect(others.map { Array($0.utf8) } + [[0x16, 3, 3, 0]], .plausible)
        expect(["", "H", "HTTP/1.1 40", "\u{15}"].map { Array($0.utf8) } + [[0x15, 3, 3, 0, 2, 2]], .undecided)
        // A rejection later in the stream is none.
        #expect(outcome(Array("xHTTP/1.1 400".utf8), cut: 1) == .plausible)
    }

    @Test("R18: an alert about the client's hello comes from a server that has read it; some may come from either")
    func alerts() {
        // handshake_failure, internal_error, close_notify, as level 2 and 1; a length that no plain alert has.
        expect([alert(40), alert(80), alert(0), alert(0, level: 1), [0x15, 3, 3, 0, 26, 1, 2]], .unclear)
        expect([49, 71, 86, 109, 110, 112, 116, 120].map { alert($0) }, .plausible)
        expect([alert(112, level: 1)], .plausible)
    }

    @Test("R18: a greeting and then an error is a rejection, however it is cut; a greeting alone says nothing yet")
    func complaints() {
        let complaints = [
            "220 mail ESMTP\r\n500 what", "220-a\r\n220 b\r\n502 x", "+OK pop\r\n-ERR what", "220 a\n503",
            "SSH-2.0-OpenSSH_9.9\r\nInvalid SSH identification string.\r\n",
        ]
        expect(complaints.map { Array($0.utf8) }, .rejection)
        let greetings = [
            "220 mail ESMTP", "220 a\r\n", "220 a\r\n50", "+OK\r\n-ER", "220-a\r\n220 b", "SSH-2.0-x\r\n",
        ]
        expect(greetings.map { Array($0.utf8) }, .undecided)
        let others = [
            "220 a\r\n250 me", "220 a\r\n221 bye", "220 a\r\n554 no", "220 a\r\n51", "+OK\r\n+OK", "+OK\r\n-EX",
            "500 x", "-ERR", "SSH-2.0-x\r\n\u{0}\u{0}",
        ]
        expect(others.map { Array($0.utf8) }, .plausible)
    }
}

@Suite("R18: what clients' connections prove of a backend and our header")
struct HeaderEvidenceTests {
    private final class Bench {
        let cell = UnsafeMutablePointer<BackendCell>.allocate(capacity: 1)
        init() { cell.initialize(to: BackendCell(Endpoint(.unspecified, 0))) }
        deinit {
            cell.deinitialize(count: 1)
            cell.deallocate()
        }
        var verdict: BackendCell.HeaderVerdict? { .init(rawValue: cell.pointee.proxy.load(ordering: .relaxed)) }
        func doubt(_ client: IPAddress) -> Bool { cell.pointee.noteHeaderDoubt(of: client) }
    }

    private func client(_ network: UInt64, _ host: UInt64 = 1) -> IPAddress {
        IPAddress(high: 0x2001_0DB8_0000_0000 | network, low: host)
    }

    @Test("three networks in a row reject; one network, however many of its clients, does not")
    func threeNetworks() {
        let bench = Bench()
        #expect(bench.verdict == .unknown)
        for host in 0..<1000 as Range<UInt64> {
            let isRejected = bench.doubt(client(1, host))
            #expect(!isRejected)
        }
        let second = bench.doubt(client(2))
        #expect(!second && bench.verdict == .unknown)
        let third = bench.doubt(client(3))
        #expect(third && bench.verdict == .rejected)
        let again = bench.doubt(client(1))
        #expect(again)
    }

    @Test("IPv4 clients are networks of their own, one each")
    func addresses() {
        let bench = Bench()
        for last in 1...2 as ClosedRange<UInt32> { _ = bench.doubt(IPAddress(v4: 0xC000_0200 | last)) }
        #expect(bench.verdict == .unknown)
        _ = bench.doubt(IPAddress(v4: 0xC000_0203))
        #expect(bench.verdict == .rejected)
    }

    @Test("one that was taken in between begins the count anew, and takes a rejection back")
    func takenMeanwhile() {
        let bench = Bench()
        for round in 0..<3 as Range<UInt64> {
            _ = bench.doubt(client(10 * round))
            _ = bench.doubt(client(10 * round + 1))
            bench.cell.pointee.noteHeaderTaken()
            #expect(bench.verdict == .accepted)
        }
        for network in 0..<3 as Range<UInt64> { _ = bench.doubt(client(network)) }
        #expect(bench.verdict == .rejected)
        bench.cell.pointee.noteHeaderTaken()
        #expect(bench.verdict == .accepted && bench.cell.pointee.headerDoubts.load(ordering: .relaxed) == 0)
    }
}
