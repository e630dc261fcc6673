import Pipeline

/// The `node` block: what belongs to the process.
final class NodeBlock: SettingsBlock {
    let name: String
    let values: NodeSettings

    init(_ name: String, _ values: NodeSettings) {
        self.name = name
        self.values = values
    }

    static let initial = NodeSettings()
    static let descriptor = BlockDescriptor(
        "node", .named, of: NodeBlock.self, "what belongs to the process rather than to a connection's way")

    static let lines: [Setting<NodeSettings>] = sizes + times + files + sockets + interception

    private static let sizes: [Setting<NodeSettings>] = [
        Setting(
            SettingLine(
                "workers", [[.word("auto")], [.count(name: "number", 1...1024)]],
                "threads; `auto`: one for each core that the process may run on", needsRestart: true),
            text: { $0.workers == 0 ? "auto" : "\($0.workers)" },
            apply: { $0.workers = Int(clamping: $1.count() ?? 0) }),
        .count(
            "connections", \.maxConnections, 1...1_000_000, then: ["per", "worker"],
            "connections at once; at the limit the newest is refused, what runs goes on", needsRestart: true),
        Setting(
            SettingLine(
                "unrouted", [[.count(name: "number", 1...1_000_000), .word("per"), .word("worker")]],
                "connections at once that wait for their first bytes",
                without: "three quarters of `connections`, at most 12k", needsRestart: true),
            text: { $0.maxUnrouted.map { "\(countText(UInt64(clamping: $0))) per worker" } },
            apply: { settings, clause in settings.maxUnrouted = clause.count().map { Int(clamping: $0) } }),
        Setting(
            SettingLine(
                "memory", [[.value(memoryKind)]],
                "what the node uses, the kernel's socket buffers included; a share is of what the cgroup or the machine "
                    + "allows"),
            text: { settings in
                switch settings.memory {
                case .percent(let percent): "\(percent)%"
                case .bytes(let bytes): sizeText(bytes)
                }
            },
            apply: { if let memory = $1.custom(as: MemorySetting.self) { $0.memory = memory } }),
        .count(
            "backlog", \.backlog, 1...65535, "connections that wait to be accepted, per listener and worker",
            needsRestart: true),
        Setting(
            SettingLine(
                "descriptors", [[.choice(name: "tables", ["per_worker", "shared"])]],
                "whether each worker has a table of file descriptors of its own", needsRestart: true),
            text: { $0.ownDescriptors ? "per_worker" : "shared" },
            apply: { $0.ownDescriptors = $1.word() == "per_worker" }),
        .count(
            "idle_upstream_sockets", \.idleUpstreamSockets, 0...65535, then: ["per", "worker"],
            "upstream sockets of short connections that are kept for the next ones", needsRestart: true,
            formerly: "spare_sockets"),
    ]

    private static let times: [Setting<NodeSettings>] = [
        .duration(
            "coalesce", \.coalesce, .zero...(.milliseconds(100)),
            "how long a bulk stream may coalesce in its socket before it is moved on", needsRestart: true),
        .duration(
            "connect_timeout", \.connectTimeout, .milliseconds(10)...(.seconds(120)),
            "how long one backend may take to accept", needsRestart: true),
        .duration(
            "half_close_timeout", \.halfCloseTimeout, .seconds(1)...(.seconds(86400)),
            "how long one direction may outlive the other", needsRestart: true),
        .duration(
            "drain_timeout", \.drainTimeout, .zero...(.seconds(86400)),
            "how long a stopping node waits for its connections"),
        Setting(
            SettingLine(
                "keepalive", [[.duration(name: "duration", .seconds(1)...(.seconds(32400)))]],
                "idle time before the kernel probes a peer, in whole seconds", needsRestart: true),
            text: { $0.keepaliveIdle.configText },
            apply: { settings, clause throws(ValueProblem) in
                guard let span = clause.duration() else { return }
                // The kernel takes keepalive times in seconds: a fraction would be lost without a word.
                guard span.nanoseconds % 1_000_000_000 == 0 else {
                    throw ValueProblem(
                        message: "`keepalive` takes whole seconds", help: "write `\(span.milliseconds / 1000 + 1)s`")
                }
                settings.keepaliveIdle = span
            }),
        .duration(
            "user_timeout", \.userTimeout, .seconds(1)...(.seconds(3600)),
            "how long a peer's TCP may leave unanswered what was sent to it before it counts as dead",
            needsRestart: true),
    ]

    static func make(_ values: NodeSettings, _ context: BlockContext) -> BlockOutcome {
        var settings = values
        settings.name = context.name
        var remarks: [BlockRemark] = []
        if values.stateDirectory != nil {
            remarks.append(
                BlockRemark(
                    .warning, at: "state",
                    "`state` does nothing yet: nothing is kept there, and a node starts from its config and its state file "
                        + "alone", help: "leave the line out"))
        }
        // A node of one worker and no routes has taken some 8 MiB before its first connection.
        if case .bytes(let size) = values.memory, size < 16 << 20 {
            remarks.append(
                BlockRemark(
                    .warning, at: "memory",
                    "with `memory \(sizeText(size))` this node may refuse every connection (`limits.memory`)",
                    help: "give it `16MiB` or more, and what its routes and connections take"))
        }
        if let rules = values.interceptRules, rules != .off, values.interceptInterfaces.isEmpty {
            remarks.append(
                BlockRemark(
                    .error, at: "intercept rules",
                    "there are no rules to look after: the config does not say where the workloads are",
                    help: "add `intercept interface NAME` to `node`: `vm*` stands for every name that begins so"))
        }
        return BlockOutcome(NodeBlock(context.name, settings), remarks)
    }
}

/// The settings of `node` in which `new` says something else than `old` and which a running node keeps, as
/// `backlog 100 -> 200`.
package func unchangeable(from old: NodeSettings, to new: NodeSettings) -> [String] {
    NodeBlock.descriptor.unchangeable(from: NodeBlock(old.name, old), to: NodeBlock(new.name, new))
}
