/// Which connections have a line, and where lines go: settings of `node`.
public struct LogSettings: Sendable, Equatable {
    public var connections = LogDestination.standard
    public var events = LogDestination.standard
    public var sample = LogSample()
    /// Names or families of reasons (``ReasonPattern``); empty: all.
    public var only: [String] = []
    /// The same; these win.
    public var except: [String] = []
    public init() {}

    /// Some lines go to a file, which SIGUSR1 opens again.
    public var hasFile: Bool { [connections, events].contains { $0.file != nil } }
}

public enum LogDestination: Sendable, Equatable {
    /// Standard output for connections, standard error for events.
    case standard
    case file(String)
    case syslog(SyslogSettings)

    public var file: String? { if case .file(let path) = self { path } else { nil } }
}

/// One connection of `every` has a line, by its unique id (R27).
public struct LogSample: Sendable, Equatable {
    /// Which connections are sampled; the others have a line each.
    public enum Population: String, Sendable, CaseIterable {
        /// Relayed, and ended in good order.
        case closed
        case relayed
        /// Refused ones, too.
        case all
    }
    public var every: UInt64 = 1
    public var population = Population.closed
    public init() {}
}

/// A syslog daemon, and the fields of what it gets.
public struct SyslogSettings: Sendable, Equatable {
    public enum Address: Sendable, Equatable, CustomStringConvertible {
        case unix(String)
        case udp(Endpoint)

        public var isUDP: Bool { if case .udp = self { true } else { false } }
        public var description: String {
            switch self {
            case .unix(let path): "unix:\(path)"
            case .udp(let endpoint): "\(endpoint)"
            }
        }
    }
    public enum Format: String, Sendable, CaseIterable { case rfc5424, rfc3164 }

    public var address: Address
    /// An index into ``facilities``.
    public var facility = 3
    public var format: Format
    public var tag = "pipelined"

    public init(_ address: Address) {
        self.address = address
        format = SyslogSettings.usualFormat(address)
    }

    /// Local daemons expect what the C library's `syslog` writes.
    public static func usualFormat(_ address: Address) -> Format {
        if case .unix = address { .rfc3164 } else { .rfc5424 }
    }

    /// By number (RFC 5424 §6.2.1), with the names of syslog.conf(5); empty: it has no common one.
    public static let facilities = [
        "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "", "",
        "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
    ]
    public var facilityName: String {
        SyslogSettings.facilities.indices.contains(facility) ? SyslogSettings.facilities[facility] : ""
    }
}

/// `sni.timeout`, one reason whichever side it names, or `limits.*`, all of a stage.
public enum ReasonPattern {
    public static func matches(_ pattern: String, _ name: String) -> Bool {
        pattern.hasSuffix(".*") ? name.utf8.starts(with: pattern.utf8.dropLast()) : pattern == name
    }
}

extension ReasonTable {
    /// Every word that ``ReasonPattern`` may be: the reasons' names, and their families.
    public var patterns: [String] {
        let all = Set(names.compactMap { $0?.name })
        return all.sorted() + Set(all.map { "\($0.prefix { $0 != "." }).*" }).sorted()
    }
}
