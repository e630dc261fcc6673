import Pipeline

/// Settings of `node` that name files, sockets and what is intercepted.
extension NodeBlock {
    static let files: [Setting<NodeSettings>] = [
        Setting(
            SettingLine(
                "state", [[.value(.path("state", of: "directory", like: "/var/lib/pipelined"))]],
                "the data directory, which keeps the journal (`pipelined audit`)", needsRestart: true),
            text: { $0.stateDirectory }, apply: { $0.stateDirectory = $1.text() }),
        Setting(
            SettingLine(
                "journal", [[.size(name: "size", 64 << 10...1 << 30)]],
                "how large a file of the journal may become (R25); with `state`", qualifier: "size"),
            text: { sizeText($0.journalFileBytes) },
            apply: { if let size = $1.size() { $0.journalFileBytes = size } }),
        Setting(
            SettingLine(
                "journal", [[.count(name: "number", 2...256)]], "how many files of the journal are kept",
                qualifier: "files"),
            text: { "\($0.journalFiles)" },
            apply: { if let count = $1.count() { $0.journalFiles = Int(clamping: count) } }),
        Setting(
            SettingLine(
                "admin", [[.value(adminKind), .options(adminOptions)]],
                "the Unix socket of `pipelined status` and other commands; only its owner has access, and members of "
                    + "the `group`, by name or number, who may read but change nothing",
                needsRestart: true),
            text: { settings in
                settings.adminSocket.map { "unix:\($0)" + (settings.adminGroup.map { " group \($0)" } ?? "") }
            },
            apply: { settings, clause in
                settings.adminSocket = clause.text()
                settings.adminGroup = clause.option("group")?.text()
            }),
    ]

    static let sockets: [Setting<NodeSettings>] = [
        Setting(
            SettingLine(
                "congestion", [[.value(congestionKind)]], "congestion control of client sockets",
                qualifier: "client",
                without: "the system's", needsRestart: true),
            text: { $0.congestionClient }, apply: { $0.congestionClient = $1.text() }),
        Setting(
            SettingLine(
                "congestion", [[.value(congestionKind)]], "congestion control of backend sockets",
                qualifier: "upstream",
                without: "the system's", needsRestart: true),
            text: { $0.congestionUpstream }, apply: { $0.congestionUpstream = $1.text() }),
        Setting(
            SettingLine(
                "denied_ports", [[.word("none")], [.list(portsKind, limit: 1024)]],
                "ports that no listener opens and no route may use (R8)"),
            text: { settings in
                settings.deniedPorts.isEmpty
                    ? "none" : settings.deniedPorts.map(DeniedPorts.text).joined(separator: " ")
            },
            apply: { settings, clause throws(ValueProblem) in
                let ranges = clause.customs(as: ClosedRange<UInt16>.self).sorted { $0.lowerBound < $1.lowerBound }
                for (earlier, later) in zip(ranges, ranges.dropFirst()) where earlier.overlaps(later) {
                    throw ValueProblem(
                        message: "`\(DeniedPorts.text(earlier))` and `\(DeniedPorts.text(later))` overlap",
                        help: "write each port once", word: DeniedPorts.text(later))
                }
                settings.deniedPorts = ranges
            }),
    ]

    static let interception: [Setting<NodeSettings>] = [
        Setting(
            SettingLine(
                "intercept", [[.list(interfaceKind, limit: 64)]],
                "the workloads' interfaces, whose connections are intercepted; `vm*` matches every name that begins "
                    + "with `vm`",
                qualifier: "interface"),
            text: { settings in
                settings.interceptInterfaces.isEmpty ? nil : settings.interceptInterfaces.joined(separator: " ")
            },
            apply: { $0.interceptInterfaces = $1.customs(as: String.self) }),
        Setting(
            SettingLine(
                "intercept", [[.choice(name: "mode", InterceptRules.allCases.map(\.rawValue))]],
                "whether the node reports lost interception rules (`watch`), and restores them (EGRESS.md)",
                qualifier: "rules",
                without: "`watch` with an intercepting listener and an `intercept interface` line, else `off`"),
            text: { $0.interceptRules?.rawValue },
            apply: { $0.interceptRules = $1.word().flatMap(InterceptRules.init(rawValue:)) }),
        Setting(
            SettingLine(
                "mark", [[.value(markKind)]],
                "the firewall mark of the node's own connections to original destinations; the next number marks what "
                    + "is intercepted", needsRestart: true),
            text: { "0x\(String($0.mark, radix: 16))" },
            apply: { if let mark = $1.count() { $0.mark = UInt32(clamping: mark) } }),
        Setting(
            SettingLine(
                "nat64", [[.list(nat64Kind, limit: 16)]],
                "IPv6 prefixes that this network translates to IPv4 (RFC 6052), besides the well-known ones",
                needsRestart: true),
            text: { $0.nat64.isEmpty ? nil : $0.nat64.map(\.description).joined(separator: " ") },
            apply: { settings, clause in
                for prefix in clause.customs(as: Prefix.self) where !settings.nat64.contains(prefix) {
                    settings.nat64.append(prefix)
                }
            }),
    ]
}

// MARK: Kinds of words

extension NodeBlock {
    static let memoryKind = ValueKind(
        "SIZE|PERCENT", expected: "a size like `2GiB`, or a share like `80%`", range: "1MiB and up, or 1%–100%"
    ) { text throws(ValueProblem) in
        guard text.hasSuffix("%") else {
            return .custom(MemorySetting.bytes(try ConfigValue.size(text, 1 << 20...1 << 50)))
        }
        guard let percent = Int(text.dropLast()), (1...100).contains(percent), "\(percent)%" == text else {
            throw ValueProblem(message: "\(quoted(text)) is not a share", expected: "`1%` to `100%`")
        }
        return .custom(MemorySetting.percent(percent))
    }

    static let adminKind = ValueKind("unix:PATH", expected: "a Unix socket like `unix:/run/pipelined/admin.sock`") {
        text throws(ValueProblem) in
        let path = text.hasPrefix("unix:") ? String(text.dropFirst(5)) : ""
        guard path.hasPrefix("/"), !path.hasSuffix("/") else {
            throw ValueProblem(
                message: "`admin` takes `unix:` and an absolute path",
                expected: "a Unix socket like `unix:/run/pipelined/admin.sock`")
        }
        // sockaddr_un has 108 bytes for it, with its NUL.
        guard path.utf8.count <= 107 else {
            throw ValueProblem(
                message: "the path has \(path.utf8.count) bytes; the kernel's limit is 107",
                help: "use a shorter one")
        }
        return .text(path)
    }

    private static let adminOptions = [ClauseSpec("group", [.word("group"), .value(groupKind)])]

    /// Whether there is such a group, ``Checker/checkAdminGroup(_:)`` says.
    private static let groupKind = ValueKind("NAME", expected: "a group like `adm`, or its number") {
        text throws(ValueProblem) in
        let isFit = { (byte: UInt8) in
            byte.isASCIILetterOrDigit || [UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: ".")].contains(byte)
        }
        guard (1...32).contains(text.utf8.count), text.utf8.allSatisfy(isFit), text.utf8.first != UInt8(ascii: "-")
        else {
            throw ValueProblem(
                message: "\(quoted(text)) can't be a group", expected: "a group like `adm`, or its number",
                help: "at most 32 letters, digits, `_`, `-` and `.`: see `getent group`")
        }
        return .text(text)
    }

    static let congestionKind = ValueKind("NAME", expected: "the kernel's name of a congestion control, like `bbr`") {
        text throws(ValueProblem) in
        let isFit = { (c: UInt8) in (c >= 0x61 && c <= 0x7A) || (c >= 0x30 && c <= 0x39) || c == 0x2D || c == 0x5F }
        // TCP_CA_NAME_MAX is 16, with its NUL.
        guard (1...15).contains(text.utf8.count), text.utf8.allSatisfy(isFit) else {
            throw ValueProblem(
                message: "\(quoted(text)) can't be a congestion control",
                expected: "the kernel's name of a congestion control, like `bbr`",
                help: "see `sysctl net.ipv4.tcp_available_congestion_control`")
        }
        return .text(text)
    }

    static let portsKind = ValueKind("PORT", expected: "ports and ranges like `23 25 137-139`, or `none`") {
        text throws(ValueProblem) in .custom(try ConfigValue.ports(text))
    }

    static let interfaceKind = ValueKind("NAME", expected: "names of interfaces like `vm*`") {
        text throws(ValueProblem) in
        guard ConfigValue.isInterface(text.hasSuffix("*") ? text.dropLast() : text[...]) else {
            throw ValueProblem(
                message: "\(quoted(text)) can't be the name of an interface",
                expected: "names of interfaces like `vm*`",
                help: "at most 15 letters, digits, `.`, `-` and `_`; a `*` only at the end: see `ip link`")
        }
        return .custom(text)
    }

    static let markKind = ValueKind("NUMBER", expected: "a firewall mark like `0x7069`", range: "0x1–0xfffffffe") {
        text throws(ValueProblem) in
        let isHex = text.hasPrefix("0x") || text.hasPrefix("0X")
        let digits = isHex ? text.dropFirst(2) : text[...]
        guard digits.first != "+", digits.first != "-", let mark = UInt32(digits, radix: isHex ? 16 : 10),
            mark > 0, mark < UInt32.max
        else {
            throw ValueProblem(
                message: "\(quoted(text)) is not a firewall mark", expected: "0x1 to 0xfffffffe",
                help: "choose one that no other rule of this host uses")
        }
        return .count(UInt64(mark))
    }

    static let nat64Kind = ValueKind(
        "PREFIX", expected: "prefixes of 32, 40, 48, 56, 64 or 96 bits like `2001:db8:64::/96`"
    ) { text throws(ValueProblem) in
        let prefix = try ConfigValue.prefix(text)
        guard !prefix.first.isIPv4, SpelledAddress.prefixLengths.contains(prefix.length) else {
            throw ValueProblem(
                message: "\(quoted(text)) is not an IPv4 translation prefix",
                expected: "prefixes of 32, 40, 48, 56, 64 or 96 bits like `2001:db8:64::/96`",
                help: "RFC 6052 allows IPv6 prefixes of these lengths")
        }
        return .custom(prefix)
    }
}
