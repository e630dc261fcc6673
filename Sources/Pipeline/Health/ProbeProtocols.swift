import FilterBackendSelect
import Pipeline

// What ready-made probes say, and how they read the answer so far. Pure, and bounded by the caller.

extension HTTPProbe {
    /// RFC 9112 §3. 1.1, because servers choose a site by Host; the connection is closed behind the status line anyway.
    func request(to place: String) -> [UInt8] {
        let host = host ?? place
        return Array(
            "GET \(path) HTTP/1.1\r\nHost: \(host)\r\nUser-Agent: pipelined-probe\r\nConnection: close\r\n\r\n".utf8)
    }

    /// RFC 9112 §4: `HTTP/1.1 200 OK`. The code decides, once the byte behind it shows that it has three digits.
    func judge(_ answer: [UInt8]) -> ProbeScript.Next {
        let form: [UInt8?] = Array("HTTP/1.".utf8) + [nil, UInt8(ascii: " ")]
        for (byte, wanted) in zip(answer, form) {
            guard wanted.map({ $0 == byte }) ?? byte.isASCIIDigit else { return .end(.unexpected) }
        }
        let code = answer.dropFirst(form.count).prefix(3)
        guard code.allSatisfy(\.isASCIIDigit) else { return .end(.unexpected) }
        guard answer.count > form.count + 3 else { return .more }
        guard [0x20, 0x0D, 0x0A].contains(answer[form.count + 3]) else { return .end(.unexpected) }
        let status = code.reduce(0 as UInt16) { $0 * 10 + UInt16($1 - UInt8(ascii: "0")) }
        return .end(expect.contains(status) ? .good : .status)
    }
}

/// PostgreSQL's protocol 3.0 (its manual, "Message Formats"): a StartupMessage, answered by `R`, a request to
/// authenticate, or by `E`, an error with a code.
enum PostgreSQLProbe {
    private static let messageLimit = 4000

    static func startup(user: String) -> [UInt8] {
        let version: [UInt8] = [0, 3, 0, 0]
        let body = version + Array("user".utf8) + [0] + Array(user.utf8) + [0, 0]
        return length(body.count + 4) + body
    }

    /// As pg_isready: whoever asks for a password, or refuses this user, accepts connections. Of the errors, those of
    /// class 57P say that the server starts, stops or recovers.
    static func judge(_ answer: [UInt8]) -> ProbeScript.Next {
        guard let type = answer.first, type == UInt8(ascii: "R") || type == UInt8(ascii: "E") else {
            return .end(.unexpected)
        }
        guard answer.count >= 5 else { return .more }
        let length = answer[1..<5].reduce(0) { $0 << 8 | Int($1) }
        // Before 3.0, and when no process can be made for the client, an error has no length but text.
        guard length >= (type == UInt8(ascii: "R") ? 8 : 5), length <= messageLimit else { return .end(.unexpected) }
        guard type == UInt8(ascii: "E") else { return .end(.good) }
        guard answer.count > length else { return .more }
        guard let code = code(answer[5...length]) else { return .end(.unexpected) }
        return .end(code.starts(with: Array("57P".utf8)) ? .notReady : .good)
    }

    /// The field `C` of an error: each field is a letter and a text that ends with 0.
    private static func code(_ fields: ArraySlice<UInt8>) -> ArraySlice<UInt8>? {
        var rest = fields
        while let letter = rest.popFirst(), letter != 0 {
            guard let end = rest.firstIndex(of: 0) else { return nil }
            if letter == UInt8(ascii: "C") { return end - rest.startIndex == 5 ? rest[..<end] : nil }
            rest = rest[(end + 1)...]
        }
        return nil
    }

    private static func length(_ count: Int) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: count >> (24 - 8 * $0)) }
    }
}

/// MySQL's and MariaDB's client protocol: the server greets in a packet, or refuses in one.
enum MySQLProbe {
    private static let packetLimit = 1024

    /// Head and content of the first packet; nil: its head is not whole, or no server's.
    static func packetSize(_ answer: [UInt8]) -> Int? {
        guard answer.count >= 4 else { return nil }
        let length = Int(answer[0]) | Int(answer[1]) << 8 | Int(answer[2]) << 16
        return (1...packetLimit).contains(length) ? length + 4 : nil
    }

    /// Protocol::HandshakeV10: packet 0, which begins with 10. An error (1040: too many connections, 1129: this host is
    /// blocked) begins with 255.
    static func judgeGreeting(_ answer: [UInt8]) -> ProbeScript.Next {
        guard answer.count >= 4 else { return .more }
        guard packetSize(answer) != nil, answer[3] == 0 else { return .end(.unexpected) }
        guard answer.count >= 5 else { return .more }
        switch answer[4] {
        case 10: return .end(.good)
        case 255: return .end(.notReady)
        default: return .end(.unexpected)
        }
    }

    /// OK, a request for another method of authentication, or more of it; an error: this user may not come in.
    static func judgeLogin(_ answer: [UInt8]) -> ProbeScript.Next {
        guard answer.count >= 4 else { return .more }
        guard packetSize(answer) != nil, answer[3] == 2 else { return .end(.unexpected) }
        guard answer.count >= 5 else { return .more }
        switch answer[4] {
        case 0, 1, 254: return .end(.good)
        case 255: return .end(.notReady)
        default: return .end(.unexpected)
        }
    }

    /// Protocol::HandshakeResponse41 without a password, and COM_QUIT: a host that leaves too often in the middle of a
    /// handshake is blocked by the server (`max_connect_errors`).
    static func login(user: String) -> [UInt8] {
        // CLIENT_LONG_PASSWORD, CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, CLIENT_PLUGIN_AUTH.
        let flags: [UInt8] = [0x01, 0x82, 0x08, 0x00]
        // Packets of up to 16 MiB; utf8.
        let body =
            flags + [0, 0, 0, 1, 33] + [UInt8](repeating: 0, count: 23) + Array(user.utf8) + [0, 0]
            + Array("mysql_native_password".utf8) + [0]
        let length = UInt32(truncatingIfNeeded: body.count)
        let head = [UInt8(truncatingIfNeeded: length), UInt8(truncatingIfNeeded: length >> 8), 0, 1]
        return head + body + [1, 0, 0, 0, 1]
    }
}

enum RedisProbe {
    static let ping = Array("*1\r\n$4\r\nPING\r\n".utf8)
    private static let good = [Array("+PONG".utf8), Array("-NOAUTH".utf8)]

    /// A server that wants a password serves who has it. Its other errors (`-LOADING`, `-MASTERDOWN`, `-ERR max number of
    /// clients reached`) come instead of service.
    static func judge(_ answer: [UInt8]) -> ProbeScript.Next {
        if good.contains(where: { answer.starts(with: $0) }) { return .end(.good) }
        if good.contains(where: { $0.starts(with: answer) }) { return .more }
        guard answer.first == UInt8(ascii: "-") else { return .end(.unexpected) }
        return answer.last == UInt8(ascii: "\n") ? .end(.notReady) : .more
    }
}

/// RFC 5321 §4.2: lines with a code of three digits; a hyphen behind it says that more lines follow.
enum SMTPProbe {
    static func judge(_ answer: [UInt8], expecting code: String) -> ProbeScript.Next {
        guard answer.count >= 3 else {
            return answer.allSatisfy(\.isASCIIDigit) ? .more : .end(.unexpected)
        }
        guard answer.starts(with: Array(code.utf8)) else { return refused(answer) }
        guard answer.last == UInt8(ascii: "\n") else { return .more }
        let line = answer.dropLast().lastIndex(of: UInt8(ascii: "\n")).map { answer[($0 + 1)...] } ?? answer[...]
        guard line.starts(with: Array(code.utf8)), line.count > 3 else { return .end(.unexpected) }
        return line[line.startIndex + 3] == UInt8(ascii: "-") ? .more : .end(.good)
    }

    /// 421, 554 and the like, at the end of the line.
    private static func refused(_ answer: [UInt8]) -> ProbeScript.Next {
        let isCode = answer.prefix(3).allSatisfy(\.isASCIIDigit)
        guard isCode, answer[0] == UInt8(ascii: "4") || answer[0] == UInt8(ascii: "5") else { return .end(.unexpected) }
        return answer.last == UInt8(ascii: "\n") ? .end(.notReady) : .more
    }
}
