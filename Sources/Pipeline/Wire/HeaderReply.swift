/// Classifies a backend's first bytes: was the PROXY header accepted? (R18)
///
/// A server that takes a v2 header for its client's first bytes sees two empty lines, a line with a NUL, a line `QUIT`, and
/// a few bytes more. A TLS server sends an alert, an HTTP server a 400. Servers of line protocols greet, complain, and say
/// goodbye. The same words may be a reply to the bytes behind the header, so the finding depends on those: see
/// ``Sent``.
///
/// Pure: bytes in, a finding out, independent of how the reply is split. A final one never changes.
public struct HeaderReply: Equatable, Sendable {
    /// The bytes sent to the backend behind the header before this reply.
    public enum Sent: Sendable {
        /// Nothing: the reply can only be about the header.
        case nothing
        /// A complete ClientHello: a backend that has read it answers in TLS.
        case hello
        /// Bytes of an unknown protocol.
        case bytes
    }

    public enum Finding: Equatable, Sendable {
        /// More bytes may show.
        case undecided
        /// A line protocol's greeting has come, which may be sent before anything is read. A complaint may still follow.
        case greeted
        /// Final: the backend has answered the bytes behind the header.
        case taken
        /// Final: the backend has answered like a server that reads the header as client bytes.
        case rejected
        /// Final: both kinds of backends answer like this.
        case unclear
    }

    /// A rejection shows within this many bytes. Later bytes are never a complaint.
    public static let limit = 4096

    private enum State: UInt8 {
        /// At the first byte, or inside the first line's first word.
        case first
        /// At a later line's first byte, or inside its first word.
        case line
        /// Behind three digits at the start of a line.
        case code
        case restOfLine
        case alert, handshake
        // What is final stands behind what isn't.
        case taken, rejected, unclear
    }

    private struct Lines: OptionSet {
        let rawValue: UInt8
        /// This line is a greeting, and the first.
        static let isGreeting = Lines(rawValue: 1)
        static let greeted = Lines(rawValue: 2)
        /// The greeting continues in lines of any text.
        static let continues = Lines(rawValue: 4)
    }

    private var state = State.first
    private var lines: Lines = []
    /// A row of ``words``; in an alert, its level.
    private var row: UInt8 = 0
    /// How many bytes of that row, or of a TLS record, have come.
    private var matched: UInt8 = 0
    private var seen: UInt16 = 0

    public init() {}

    public mutating func read(_ bytes: UnsafeRawBufferPointer, behind sent: Sent) -> Finding {
        // As most come: a handshake record, and its head whole.
        if seen == 0, bytes.count >= 6, bytes[0] == 0x16, bytes[1] == 3 {
            (state, seen) = (HeaderReply.handshake(bytes[5], sent), 6)
            return finding
        }
        for byte in bytes {
            guard !isFinal else { break }
            guard seen < HeaderReply.limit else {
                if sent != .nothing { state = sent == .bytes ? .taken : .unclear }
                break
            }
            seen += 1
            read(byte, sent)
        }
        return finding
    }

    public var finding: Finding {
        switch state {
        case .taken: .taken
        case .rejected: .rejected
        case .unclear: .unclear
        default: lines.contains(.greeted) ? .greeted : .undecided
        }
    }

    /// The finding at the stream's end, by FIN or RST: a backend that closes without a byte has rejected the header.
    /// One that has greeted may have been too busy.
    public var ended: Finding {
        if isFinal { return finding }
        return seen == 0 ? .rejected : .unclear
    }

    private var isFinal: Bool { state.rawValue >= State.taken.rawValue }

    private mutating func read(_ byte: UInt8, _ sent: Sent) {
        switch state {
        case .first where matched == 0 && byte == 0x15: (state, matched) = (.alert, 1)
        case .first where matched == 0 && byte == 0x16: (state, matched) = (.handshake, 1)
        case .first, .line: readWord(byte, sent)
        case .code: readSeparator(byte, sent)
        case .restOfLine: readRest(byte, sent)
        case .alert: readAlert(byte, sent)
        case .handshake: readHandshake(byte, sent)
        case .taken, .rejected, .unclear: break
        }
    }

    /// An answer that says nothing about the header: final if bytes were sent behind it; otherwise complaints may still
    /// follow.
    private mutating func pass(_ byte: UInt8, _ sent: Sent) {
        switch sent {
        case .nothing: skipLine(byte)
        case .hello: state = .unclear
        case .bytes: state = .taken
        }
    }

    private mutating func readRest(_ byte: UInt8, _ sent: Sent) {
        // What is in no line protocol, and has begun before there was anything to answer.
        let isForeign = lines.isDisjoint(with: [.isGreeting, .greeted])
        if isForeign, sent != .nothing { pass(byte, sent) } else { skipLine(byte) }
    }

    private mutating func skipLine(_ byte: UInt8) {
        state = .restOfLine
        if byte == UInt8(ascii: "\n") { endLine() }
    }

    private mutating func endLine() {
        if lines.contains(.isGreeting) { lines.insert(.greeted) }
        lines.remove(.isGreeting)
        (state, row, matched) = (.line, 0, 0)
    }
}

// MARK: TLS

extension HeaderReply {
    /// RFC 8446 §5.1, §6: alert(21), the legacy version, whose first byte is 3, a length of 2, the level and the description.
    private mutating func readAlert(_ byte: UInt8, _ sent: Sent) {
        let place = matched
        matched += 1
        switch place {
        case 1 where byte != 3: pass(byte, sent)
        case 3 where byte != 0, 4 where byte != 2: state = .unclear
        case 5: row = byte
        case 6: state = HeaderReply.alert(level: row, byte, sent)
        default: break
        }
    }

    private static func alert(level: UInt8, _ description: UInt8, _ sent: Sent) -> State {
        // There was no hello that it could be about.
        guard sent != .nothing else { return .rejected }
        // A warning other than close_notify: the hello was read, and has a name that is not known (RFC 6066 §3).
        if level == 1, description != 0 { return .taken }
        switch description {
        // access_denied, insufficient_security, inappropriate_fallback, missing_extension, unsupported_extension,
        // unrecognized_name, unknown_psk_identity, certificate_required, no_application_protocol: these are about a hello
        // that was read (RFC 8446 §6.2, RFC 5246 §7.2.2).
        case 49, 71, 86, 109, 110, 112, 115, 116, 120: return .taken
        // unexpected_message, bad_record_mac, record_overflow, illegal_parameter, decode_error, protocol_version.
        case 10, 20, 22, 47, 50, 70: return .rejected
        // handshake_failure, internal_error, close_notify, …: from either.
        default: return .unclear
        }
    }

    /// RFC 8446 §5.1, §4: handshake(22), the legacy version, a length, and ServerHello(2), which a HelloRetryRequest is, too.
    private mutating func readHandshake(_ byte: UInt8, _ sent: Sent) {
        let place = matched
        matched += 1
        switch place {
        case 1 where byte != 3: pass(byte, sent)
        case 5: state = HeaderReply.handshake(byte, sent)
        default: break
        }
    }

    private static func handshake(_ type: UInt8, _ sent: Sent) -> State {
        sent == .bytes || (sent == .hello && type == 2) ? .taken : .unclear
    }
}

// MARK: Lines

extension HeaderReply {
    /// What lines begin with, in rows of ``columns`` bytes; `_` ends a shorter one, `#` is any digit. What a word begins with, or is
    /// one of, stands below it.
    private static let words: StaticString = """
        HTTP/1.0 400\
        HTTP/1.1 400\
        500_________\
        501_________\
        502_________\
        503_________\
        -ERR________\
        ERROR_______\
        BAD ________\
        * BAD_______\
        Invalid SSH_\
        * BYE_______\
        221_________\
        4##_________\
        5##_________\
        * OK________\
        * PREAUTH___\
        +OK_________\
        SSH-________\
        220_________\
        ###_________\
        HTTP/1._____
        """
    private static let columns = 12
    private static let rows = 22

    private enum Word {
        /// Replies to an unknown command, which are never greetings.
        case complaint
        /// Goodbyes: by a busy server, or at the client's request.
        case refusal
        case greeting
        /// RFC 5321 §4.3.2, RFC 959 §5.4: ready. On a later line it still belongs to the greeting.
        case ready
        /// Three digits (RFC 5321 §4.2, RFC 3977 §3.2).
        case code
        case http

        init(row: Int) {
            switch row {
            case ..<11: self = .complaint
            case ..<15: self = .refusal
            case ..<19: self = .greeting
            case 19: self = .ready
            case 20: self = .code
            default: self = .http
            }
        }
    }

    private static func byte(_ row: Int, _ column: Int) -> UInt8 { words.utf8Start[row * columns + column] }

    private static func isWhole(_ row: Int, _ count: Int) -> Bool {
        count == columns || byte(row, count) == UInt8(ascii: "_")
    }

    private static func fits(_ byte: UInt8, _ pattern: UInt8) -> Bool {
        guard pattern == UInt8(ascii: "#") else { return byte == pattern }
        return byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9")
    }

    /// Whether what has come of row `known` is the beginning of row `other`, too, or more than all of it.
    private static func shares(_ count: Int, of known: Int, _ other: Int) -> Bool {
        for column in 0..<count where !isWhole(other, column) {
            let (read, pattern) = (byte(known, column), byte(other, column))
            guard read == pattern || fits(read, pattern) else { return false }
        }
        return true
    }

    /// Most replies are in no line protocol: this tells at once.
    private static func beginsWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "H"), UInt8(ascii: "-"), UInt8(ascii: "E"),
            UInt8(ascii: "B"), UInt8(ascii: "*"), UInt8(ascii: "I"), UInt8(ascii: "+"), UInt8(ascii: "S"):
            true
        default: false
        }
    }

    private mutating func readWord(_ byte: UInt8, _ sent: Sent) {
        guard matched > 0 || HeaderReply.beginsWord(byte) else { return endUnknown(byte, sent) }
        let (known, count) = (Int(row), Int(matched))
        for row in known..<HeaderReply.rows where HeaderReply.shares(count, of: known, row) {
            // Only one word begins others.
            guard !HeaderReply.isWhole(row, count) else { return found(Word(row: row), sent) }
            guard HeaderReply.fits(byte, HeaderReply.byte(row, count)) else { continue }
            (self.row, matched) = (UInt8(row), UInt8(count + 1))
            if HeaderReply.isWhole(row, count + 1), Word(row: row) != .http { found(Word(row: row), sent) }
            return
        }
        endUnknown(byte, sent)
    }

    private mutating func found(_ word: Word, _ sent: Sent) {
        let isFirst = state == .first
        switch word {
        case .complaint: state = .rejected
        case .refusal: state = isFirst || sent != .nothing ? .unclear : .rejected
        // A server may tire of waiting (408), or answer HTTP to what is none.
        case .http: state = sent == .bytes ? .taken : .unclear
        case .greeting where isFirst: (state, lines) = (.restOfLine, .isGreeting)
        case .ready where isFirst, .code where isFirst: (state, lines) = (.code, .isGreeting)
        case .ready: state = .code
        case .code where lines.contains(.continues): state = .code
        case .code, .greeting: pass(0, sent)
        }
    }

    /// RFC 5321 §4.2.1: a hyphen behind the code says that more lines follow.
    private mutating func readSeparator(_ byte: UInt8, _ sent: Sent) {
        switch byte {
        case UInt8(ascii: "-"): lines.insert(.continues)
        case UInt8(ascii: " "), UInt8(ascii: "\r"), UInt8(ascii: "\n"): lines.remove(.continues)
        default:
            lines.remove(.isGreeting)
            guard lines.contains(.continues) else { return pass(byte, sent) }
        }
        skipLine(byte)
    }

    private mutating func endUnknown(_ byte: UInt8, _ sent: Sent) {
        let isLineEnd = byte == UInt8(ascii: "\r") || byte == UInt8(ascii: "\n")
        let isSkipped = lines.contains(.continues) || (matched == 0 && isLineEnd)
        if state == .line, isSkipped { skipLine(byte) } else { pass(byte, sent) }
    }
}
