import PipelineWire
import TestSupport
import Testing

/// What a backend's answer says of the PROXY header in front, however it is cut.
@Suite("R18: a backend's reply to a PROXY header")
struct HeaderReplyTests {
    private func finding(_ text: [UInt8], cut: Int, _ sent: HeaderReply.Sent) -> HeaderReply.Finding {
        var reply = HeaderReply()
        for piece in [text.prefix(cut), text.dropFirst(cut)] {
            _ = Array(piece).withUnsafeBytes { reply.read($0, behind: sent) }
        }
        return reply.finding
    }

    private func expect(_ texts: [[UInt8]], _ sent: HeaderReply.Sent, _ wanted: HeaderReply.Finding) {
        for text in texts {
            for cut in 0...text.count {
                #expect(finding(text, cut: cut, sent) == wanted, "\(hex(text)) behind \(sent), cut at \(cut)")
            }
        }
    }

    private func expect(_ texts: [String], _ sent: HeaderReply.Sent, _ wanted: HeaderReply.Finding) {
        expect(texts.map { Array($0.utf8) }, sent, wanted)
    }

    private func alert(_ description: UInt8, level: UInt8 = 2) -> [UInt8] { [0x15, 3, 3, 0, 2, level, description] }

    private static let all: [HeaderReply.Sent] = [.nothing, .hello, .bytes]
    private static let serverHello: [UInt8] = [0x16, 3, 3, 0, 90, 2, 0, 0, 86, 3, 3]

    @Test("alerts for junk and HTTP 400 are rejections, whatever was sent behind the header")
    func rejections() {
        for sent in Self.all {
            expect([10, 20, 22, 47, 50, 70].map { alert($0) }, sent, .rejected)
            expect(["HTTP/1.1 400 Bad", "HTTP/1.0 400"], sent, .rejected)
        }
    }

    @Test("an alert about the client's hello comes from a server that has read it; some may come from either")
    func alerts() {
        for sent in [HeaderReply.Sent.hello, .bytes] {
            expect([49, 71, 86, 109, 110, 112, 115, 116, 120].map { alert($0) }, sent, .taken)
            expect([alert(112, level: 1), alert(10, level: 1)], sent, .taken)
            // handshake_failure, internal_error, close_notify, as level 2 and 1.
            expect([alert(40), alert(80), alert(0), alert(0, level: 1)], sent, .unclear)
        }
        // Behind the header alone there was no hello.
        expect([40, 80, 0, 112].map { alert($0) } + [alert(0, level: 1)], .nothing, .rejected)
        // A length that no plain alert has.
        for sent in Self.all { expect([[0x15, 3, 3, 0, 26, 1, 2], [0x15, 3, 3, 1]], sent, .unclear) }
    }

    @Test("a ServerHello answers a hello; to a hello nothing but TLS is an answer")
    func handshakes() {
        expect([Self.serverHello], .hello, .taken)
        expect([Self.serverHello, [0x16, 3, 3, 0, 4, 0]], .bytes, .taken)
        expect([Self.serverHello], .nothing, .unclear)
        expect([[0x16, 3, 3, 0, 4, 0], [0x16, 0x41], [0], [0x4A, 0, 0]], .hello, .unclear)
        expect(["HTTP/1.1 200 OK", "x", "220 a\r\n250 x", "220 a\r\nx"], .hello, .unclear)
        for length in 0..<6 { expect([Array(Self.serverHello.prefix(length))], .hello, .undecided) }
    }

    @Test("other answers to a client's bytes show that they were read; behind the header alone they show nothing")
    func others() {
        let texts = [
            "HTTP/1.1 200 OK", "HTTP/2.0 400", "HTTP/1.2 400", "HTTP/1.1 401 x", "\u{15}x", "x", "\u{0}", "\n",
        ]
        expect(texts, .bytes, .taken)
        expect(["x", "\u{0}", "\u{15}x", "J\n5.7.1", "\n", "\r\n", "hello\r\n"], .nothing, .undecided)
        expect(["HTTP/1.1 408 Request Timeout", "HTTP/1.1 200 OK\r\n\r\nERROR"], .nothing, .unclear)
        for sent in Self.all {
            expect(["", "H", "HTTP/1.1 40", "\u{15}", "-ER", "50", "* B", "Invalid SS"], sent, .undecided)
            expect([[0x15, 3, 3, 0, 2, 2]], sent, .undecided)
        }
        // What comes behind an answer is none to the header.
        #expect(finding(Array("xHTTP/1.1 400".utf8), cut: 1, .bytes) == .taken)
    }

    @Test("a complaint is a rejection, behind a greeting or without one; a greeting alone says nothing yet")
    func complaints() {
        for sent in Self.all {
            expect(
                [
                    "220 mail ESMTP\r\n500 what", "220-a\r\n220 b\r\n502 x", "220-a\r\n any words\r\n220 b\r\n501",
                    "220 a\n503", "+OK pop\r\n-ERR what", "* OK imap\r\n* BAD what", "* PREAUTH x\r\nBAD x",
                    "SSH-2.0-OpenSSH_9.9\r\nInvalid SSH identification string.\r\n", "120 wait\r\n220 a\r\n500 x",
                    "500 x", "-ERR unknown command\r\n", "ERROR\r\n", "200 news\r\n500 what",
                ], sent, .rejected)
            expect(
                [
                    "220 a\r\n", "220 a\r\n50", "+OK\r\n-ER", "220-a\r\n220 b", "SSH-2.0-x\r\n", "220\n",
                    "220-a\r\n any words\r\n", "* OK ready\r\n* ", "220 a\r\n\r\n",
                ], sent, .greeted)
            expect(["220 mail ESMTP", "SSH-2.0-x", "220-a"], sent, .undecided)
        }
        expect(["hello\r\nERROR\r\n", "\n500 x", "220 a\r\n250 b\r\n500 x", "2205\r\n500 "], .nothing, .rejected)
    }

    @Test("whoever refuses or lets go speaks of the header only if nothing was sent behind it")
    func refusals() {
        let later = [
            "220 a\r\n221 bye", "220 a\r\n554 no", "220 a\r\n421 busy", "* OK\r\n* BYE", "220-a\r\n220 b\r\n530",
        ]
        expect(later, .nothing, .rejected)
        expect(later, .bytes, .unclear)
        expect(later, .hello, .unclear)
        // Too busy is no misunderstanding, and no proof.
        for sent in Self.all { expect(["421 too busy\r\n", "554-a\r\n554 no\r\n", "221 x", "* BYE"], sent, .unclear) }
    }

    @Test("an answer behind a greeting shows that the header was taken")
    func answered() {
        let answers = [
            "220 a\r\n250 me", "+OK\r\n+OK", "+OK\r\n-EX", "SSH-2.0-x\r\n\u{0}\u{0}",
            "220-a\r\n b\r\n220 c\r\n250 d", "* OK x\r\na1 OK", "2205 x",
        ]
        expect(answers, .bytes, .taken)
        expect(["220 a\r\n250 me", "+OK\r\n+OK\r\n"], .nothing, .greeted)
        // The client's words have come between the greeting and the rest.
        var reply = HeaderReply()
        let greeting = Array("220 a\r\n".utf8).withUnsafeBytes { reply.read($0, behind: .nothing) }
        let answer = Array("250 b\r\n".utf8).withUnsafeBytes { reply.read($0, behind: .bytes) }
        #expect(greeting == .greeted && answer == .taken)
        var other = HeaderReply()
        let first = Array("J\u{0}".utf8).withUnsafeBytes { other.read($0, behind: .nothing) }
        let second = Array("\u{0}".utf8).withUnsafeBytes { other.read($0, behind: .bytes) }
        #expect(first == .undecided && second == .taken)
        // Signs of the patterns are none of the protocols'.
        expect(["42# x", "### x", "HTTP/1._"], .bytes, .taken)
    }

    @Test("whoever hangs up without a word rejects; behind a greeting, or in the middle of a word, it says nothing")
    func ends() {
        let ended = { (text: String, sent: HeaderReply.Sent) in
            var reply = HeaderReply()
            _ = Array(text.utf8).withUnsafeBytes { reply.read($0, behind: sent) }
            return reply.ended
        }
        for sent in Self.all {
            #expect(ended("", sent) == .rejected)
            #expect(ended("220 a\r\n", sent) == .unclear)
            #expect(ended("HTTP/1.1 40", sent) == .unclear)
            #expect(ended("220 a\r\n500", sent) == .rejected)
        }
        #expect(ended("HTTP/1.1 200", .bytes) == .taken)
    }

    @Test("nothing behind the limit is a complaint; a final finding stays")
    func limit() {
        let flood = [UInt8](repeating: 0x41, count: HeaderReply.limit - 1) + Array("\n500 x".utf8)
        for cut in [0, 7, HeaderReply.limit - 1] {
            #expect(finding(Array(flood.dropFirst(4)), cut: cut, .nothing) == .rejected)
            #expect(finding(flood, cut: cut, .nothing) == .undecided)
        }
        var reply = HeaderReply()
        let early = flood.withUnsafeBytes { reply.read($0, behind: .nothing) }
        let late = Array("250".utf8).withUnsafeBytes { reply.read($0, behind: .bytes) }
        #expect(early == .undecided && late == .taken)
        for (text, wanted) in [("HTTP/1.1 400", HeaderReply.Finding.rejected), ("421 x", .unclear), ("x", .taken)] {
            expect([text + "\r\n500\r\n250\r\n"], .bytes, wanted)
        }
    }

    @Test("it takes six bytes: every connection has one")
    func size() { #expect(MemoryLayout<HeaderReply>.size <= 6) }
}
