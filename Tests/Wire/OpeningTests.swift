import PipelineWire
import TestSupport
import Testing

@Suite("what is said before TLS")
struct OpeningTests {
    private func line(_ text: String, limit: Int = 512) -> TextLine {
        withExactBytes(Array(text.utf8)) { TextLine.first(of: $0, limit: limit) }
    }

    @Test("a line ends with CR LF or LF, and has no control characters")
    func lines() {
        #expect(line("") == .incomplete)
        #expect(line("EHLO") == .incomplete)
        #expect(line("EHLO\r") == .incomplete)
        #expect(line("EHLO\r\n") == .whole(content: 4, length: 6))
        #expect(line("EHLO\nX") == .whole(content: 4, length: 5))
        #expect(line("\r\n") == .whole(content: 0, length: 2))
        for text in ["EH\rLO\r\n", "\0", "EHLO\u{16}", "\u{7F}"] { #expect(line(text) == .binary, "\(text)") }
        #expect(line(String(repeating: "x", count: 511) + "\n") == .whole(content: 511, length: 512))
        #expect(line(String(repeating: "x", count: 512)) == .tooLong)
    }

    @Test("SMTP's commands, in any case")
    func smtp() {
        func command(_ text: String) -> SMTPCommand { withExactBytes(Array(text.utf8)) { SMTPCommand($0) } }
        #expect(command("EHLO x") == .ehlo && command("ehlo") == .ehlo && command("HELO x") == .helo)
        #expect(command("STARTTLS") == .startTLS && command("StartTLS ") == .startTLS)
        #expect(command("STARTTLS now") == .startTLSWithParameter)
        #expect(command("NOOP") == .noop && command("RSET") == .reset && command("QUIT") == .quit)
        for text in ["MAIL FROM:<a@b>", "STARTTLSX", "", " EHLO", "AUTH PLAIN x"] { #expect(command(text) == .other) }
    }

    @Test("an SMTP reply is read to its end, of one line or many, and no further")
    func replies() {
        func read(_ text: String) -> (SMTPReply.Finding, Int) {
            var reply = SMTPReply()
            for (index, byte) in Array(text.utf8).enumerated() {
                let finding = reply.read(byte)
                if finding != .incomplete { return (finding, index + 1) }
            }
            return (.incomplete, text.utf8.count)
        }
        for text in [
            "220 mx ready\r\n", "220\r\n", "220 \n", "250-mx\r\n250-SIZE 1\r\n250 STARTTLS\r\n", "250-a\r\n250\r\n",
        ] {
            #expect(read(text) == (.complete(code: Int(text.prefix(3)) ?? 0), text.utf8.count), "\(text)")
            for count in 0..<text.utf8.count { #expect(read(String(text.prefix(count))).0 != .malformed, "\(text)") }
        }
        for text in [
            "22\r\n", "220x\r\n", "250-a\r\n251 b\r\n", "220 a\rb", "HTTP/1.1 400", "\0", "199 x\r\n", "600 x\r\n",
            "220 \0", "* OK\r\n",
        ] { #expect(read(text).0 == .malformed, "\(text)") }
        #expect(read("220 " + String(repeating: "x", count: 1100)).0 == .malformed)
        #expect(read(String(repeating: "250-x\r\n", count: 70)).0 == .malformed)
    }

    @Test("IMAP's commands have a tag")
    func imap() {
        func command(_ text: String) -> IMAPCommand? { withExactBytes(Array(text.utf8)) { IMAPCommand($0) } }
        #expect(command("a1 STARTTLS")?.verb == .startTLS && command("a1 STARTTLS")?.tag == 2)
        #expect(command(". starttls")?.verb == .startTLS && command("x CAPABILITY")?.verb == .capability)
        #expect(command("x LOGIN a b")?.verb == .login && command("x AUTHENTICATE PLAIN")?.verb == .login)
        #expect(command("x NOOP")?.verb == .noop && command("x LOGOUT")?.verb == .logout)
        #expect(command("x STARTTLS now")?.verb == .other && command("x ")?.verb == .other)
        for text in ["", "STARTTLS", "* OK", "+ x", " x", "a(b NOOP", String(repeating: "t", count: 65) + " NOOP"] {
            #expect(command(text) == nil, "\(text)")
        }
    }

    @Test("an IMAP server greets, says what it likes, and answers the command")
    func imapAnswers() {
        func read(_ text: String) -> [IMAPAnswers.Finding] {
            var answers = IMAPAnswers()
            return Array(text.utf8).map { answers.read($0) }.filter { $0 != .incomplete }
        }
        #expect(read("* OK ready\r\n") == [.greeted])
        #expect(read("* OK [CAPABILITY x] y\r\n* CAPABILITY z\r\na OK begin\r\n") == [.greeted, .willing])
        #expect(read("* ok\r\nA ok\r\n") == [.greeted, .willing])
        for text in ["* BYE no\r\n", "* PREAUTH hi\r\n"] { #expect(read(text) == [.unwilling], "\(text)") }
        for text in ["a NO no\r\n", "a BAD x\r\n", "* BYE x\r\n"] {
            #expect(read("* OK\r\n" + text) == [.greeted, .unwilling], "\(text)")
        }
        for text in ["220 mx\r\n", "* OKAY\r\n", "\r\n"] { #expect(read(text).first == .malformed, "\(text)") }
        #expect(read("* OK\r\nb OK\r\n") == [.greeted, .malformed])
    }

    private static let request: [UInt8] =
        [0x30, 0x1D, 2, 1, 1, 0x77, 0x18, 0x80, 0x16] + Array("1.3.6.1.4.1.1466.20037".utf8)

    @Test("LDAP's StartTLS, also with the long lengths that Microsoft's clients write")
    func ldap() {
        func look(_ bytes: [UInt8]) -> LDAPMessage { withExactBytes(bytes) { LDAPMessage.look(at: $0) } }
        #expect(look(Self.request) == .startTLS(id: 1, length: 31))
        #expect(look(Self.request + [1]) == .startTLS(id: 1, length: 31))
        #expect(LDAPMessage.withRequest { Array($0) } == Self.request)
        for count in 0..<31 {
            guard case .incomplete(let needs) = look(Array(Self.request.prefix(count))) else {
                Issue.record("\(count) bytes are enough")
                continue
            }
            #expect(needs > count && needs <= 31)
        }
        let name = Array("1.3.6.1.4.1.1466.20037".utf8)
        let long: [UInt8] = [0x30, 0x84, 0, 0, 0, 0x22, 2, 2, 1, 0, 0x77, 0x84, 0, 0, 0, 0x18, 0x80, 0x16] + name
        #expect(look(long) == .startTLS(id: 256, length: long.count))
        let bind: [UInt8] = [0x30, 0x0C, 2, 1, 1, 0x60, 7, 2, 1, 3, 4, 0, 0x80, 0]
        #expect(look(bind) == .other)
        #expect(look([0x30, 0x82, 0x10, 0]) == .other, "too long to be one")
        for bytes: [UInt8] in [[0x16], [0x31], [0x30, 2, 4, 0], [0x30, 3, 2, 1, 0xFF], [0x30, 0x80]] {
            #expect(look(bytes) == .malformed, "\(bytes)")
        }
    }

    @Test("what is said in LDAP is what it takes, and no more bytes")
    func ldapWritten() {
        let tail: [UInt8] = [0x78, 7, 0x0A, 1, 0, 4, 0, 4, 0]
        for (id, bytes): (UInt32, [UInt8]) in [
            (0, [0]), (1, [1]), (127, [127]), (128, [0, 128]), (256, [1, 0]), (0x7FFF_FFFF, [0x7F, 255, 255, 255]),
        ] {
            let written = LDAPMessage.withSuccess(id) { Array($0) }
            #expect(written == [0x30, UInt8(11 + bytes.count), 2, UInt8(bytes.count)] + bytes + tail)
        }
        let notice = LDAPMessage.withNotice { Array($0) }
        #expect(notice.count == 38 && notice[1] == 36 && notice.contains(13))
    }

    @Test("an LDAP server's answer is whole, and nothing stands behind it")
    func ldapAnswers() {
        func look(_ bytes: [UInt8]) -> LDAPAnswer { withExactBytes(bytes) { LDAPAnswer.look(at: $0) } }
        let willing = LDAPMessage.withSuccess(1) { Array($0) }
        for count in 0..<willing.count { #expect(look(Array(willing.prefix(count))) == .incomplete) }
        #expect(look(willing) == .willing)
        #expect(look(willing + [22]) == .malformed)
        let refusal: [UInt8] = [0x30, 0x0C, 2, 1, 1, 0x78, 7, 0x0A, 1, 2, 4, 0, 4, 0]
        #expect(look(refusal) == .unwilling)
        #expect(look(LDAPMessage.withNotice { Array($0) }) == .unwilling)
        #expect(look(LDAPMessage.withSuccess(2) { Array($0) }) == .malformed)
        #expect(look([0x30, 0x82, 4, 0]) == .malformed)
        #expect(look(Array("HTTP".utf8)) == .malformed)
    }
}

@Suite("the corpus of Mail")
struct MailCorpusTests {
    @Test("R7: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("Mail") { expect(input) }
    }

    @Test("R7: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("Mail"), budget: 4000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { MailProperties.violation($0) }
        #expect(violation == nil, "\(input.name): \(violation ?? "") \(hex(input.bytes))")
    }
}

@Suite("the corpus of Directory")
struct DirectoryCorpusTests {
    @Test("R7: what the fuzzer found, again", .timeLimit(.minutes(5))) func replay() throws {
        for input in try Corpus.inputs("Directory") { expect(input) }
    }

    @Test("R7: every prefix and every byte of it changed", .timeLimit(.minutes(5))) func variants() throws {
        Corpus.forEachVariant(try Corpus.inputs("Directory"), budget: 4000) { expect($0) }
    }

    private func expect(_ input: Corpus.Input) {
        let violation = withExactBytes(input.bytes) { DirectoryProperties.violation($0) }
        #expect(violation == nil, "\(input.name): \(violation ?? "") \(hex(input.bytes))")
    }
}
