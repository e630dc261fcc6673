import Pipeline
import PipelineLimits
import PipelineSets

/// A program as text, for `check --print` and golden tests: the same program always gives the same text, wherever its
/// lines stood in the source.
package func describe(_ program: Program) -> String {
    var text = describe(program.node)
    for set in program.sets { text += describe(set) }
    let names = (program.blocks[.names] ?? [:]).values.compactMap { $0 as? NameSet }
    for set in names.sorted(by: { $0.name < $1.name }) { text += describe(set) }
    let checks = (program.blocks[.health] ?? [:]).values.compactMap { $0 as? HealthSettings }
    for health in checks.sorted(by: { $0.name < $1.name }) { text += describe(health) }
    let limits = (program.blocks[.limit] ?? [:]).values.compactMap { $0 as? LimitTable }
    for limit in limits.sorted(by: { $0.name < $1.name }) { text += describe(limit) }
    for chain in program.chains.buffer { text += describe(chain) }
    for listener in program.listeners {
        text += "listen \(listener.endpoint) \(listener.kindName) via \(program.chainName(listener.chain))\n"
    }
    for expose in program.exposes {
        let address =
            expose.isDedicated
            ? Checker.dedicated : expose.address.isIPv4 ? "\(expose.address)" : "[\(expose.address)]"
        text += "expose \(address) ports \(expose.ports.lowerBound)-\(expose.ports.upperBound) "
        text += "\(expose.hint.name) via \(program.chainName(expose.chain))\n"
    }
    for export in program.node.exports { text += describe(export) }
    if let hints = program.node.hints { text += describe(hints) }
    return text
}

private func describe(_ hints: HintSettings) -> String {
    let threshold = { (threshold: HintSettings.Threshold?) in
        threshold.map { "\($0.count) in \($0.window.configText)" } ?? "off"
    }
    let volume = hints.volume.map { "\($0.factor)x over \(sizeText($0.floor)) in \($0.window.configText)" } ?? "off"
    return """
        hints
            fan_out \(threshold(hints.fanOut)), smtp \(threshold(hints.smtp)), port_scan \(threshold(hints.portScan))
            volume \(volume), repeat \(hints.repeatEvery.configText)

        """
}

private func describe(_ export: ExportSettings) -> String {
    var text = "export ipfix \(export.transport.rawValue) \(export.collector) domain \(export.domain) "
    text += "enterprise \(export.enterprise) queue \(countText(UInt64(clamping: export.queue)))"
    return text + " templates \(export.templates.configText)\n"
}

/// The `route` blocks as text, in source order.
package func describe(_ routes: [RouteBlock]) -> String {
    routes.map { route in
        let owner = route.owner.value
        var text = "route \(route.id.value)\(route.hostname.map { " " + $0.value } ?? "") \(route.hint.name)\n"
        text += "    owner \(owner.org)/\(owner.app)/\(owner.env), port \(route.listen.value)\n"
        text += "    backends \(route.backends.map { describe($0.value) }.joined(separator: " "))\n"
        text += "    balance \(route.balance?.value.name ?? "of the stage"), "
        text += "max_connections \(route.maxConnections.map { String($0.value) } ?? "none")\n"
        text += "    proxy_protocol \(route.proxyV2?.value == true ? "v2" : "off")"
        text += ", backend expects it: \(route.backendExpectsProxy?.value == true)"
        return text + ", allow_non_tls: \(route.allowNonTLS?.value == true)\n"
    }.joined()
}

private func describe(_ backend: BackendSpec) -> String {
    var text = "\(backend.endpoint)"
    if backend.weight != 1 { text += " weight \(backend.weight)" }
    if backend.maxConnections > 0 { text += " max \(backend.maxConnections)" }
    return text
}

extension Program {
    fileprivate func chainName(_ index: Int) -> String {
        index >= 0 && index < chains.count ? chains[index].name : "?"
    }
}

private func describe(_ node: NodeSettings) -> String {
    let denied = node.deniedPorts.isEmpty ? "none" : node.deniedPorts.map(DeniedPorts.text).joined(separator: " ")
    let interfaces = node.interceptInterfaces.joined(separator: " ")
    let ledger = node.ledger.map {
        "\($0.path), minutes \($0.minutes.configText), hours \($0.hours.configText), days \($0.days.configText)"
    }
    let conntrack = node.conntrack.map { "every \($0.interval.configText), table \($0.tableLimit)" }
    let rules = node.interceptRules.map { ", rules \($0.rawValue)" } ?? ""
    let nat64 = node.nat64.isEmpty ? "" : ", nat64 " + node.nat64.map(\.description).joined(separator: " ")
    return """
        node \(node.name)
            workers \(node.workers == 0 ? "auto" : String(node.workers)), \(node.maxConnections) connections per worker\
        \(node.maxUnrouted.map { " (\($0) unrouted)" } ?? ""), backlog \(node.backlog)
            descriptors \(node.ownDescriptors ? "per_worker" : "shared"), \(node.spareSockets) spare_sockets per worker, \
        coalesce \(node.coalesce.configText)
            connect_timeout \(node.connectTimeout.configText), half_close_timeout \(node.halfCloseTimeout.configText), \
        drain_timeout \(node.drainTimeout.configText)
            keepalive \(node.keepaliveIdle.configText), user_timeout \(node.userTimeout.configText)
            congestion client \(node.congestionClient ?? "system"), upstream \(node.congestionUpstream ?? "system")
            denied_ports \(denied), memory \(describe(node.memory))
            log \(describeLog(node)), state \(node.stateDirectory ?? "none"), \
        admin \(node.adminSocket.map { "unix:\($0)" } ?? "none")
            intercept \(interfaces.isEmpty ? "nothing" : "interface \(interfaces)")\(rules), mark 0x\(String(node.mark, radix: 16))\(nat64)
            ledger \(ledger ?? "none"), conntrack \(conntrack ?? "off")

        """
}

private func describe(_ memory: MemorySetting) -> String {
    switch memory {
    case .percent(let percent): "\(percent)%"
    case .bytes(let bytes): sizeText(bytes)
    }
}

private func describeLog(_ node: NodeSettings) -> String {
    node.logConnections ? "connections refusals \(node.loggedRefusals)/s" : "off"
}

/// At most so many members of a list are shown.
private let shownMembers = 16

private func describeMembers(_ members: [String], of count: Int) -> String {
    let rest = count > members.count ? " and \(count - members.count) more" : ""
    return "\(count): " + members.joined(separator: " ") + rest
}

private func describe(_ set: AddressSet) -> String {
    "set \(set.name.dropFirst())\n    \(describeMembers(set.prefixes.prefix(shownMembers).map(\.description), of: set.prefixes.count))\n"
}

private func describe(_ names: NameSet) -> String {
    let shown = names.table.texts(shownMembers)
    return "names \(names.name)\n    \(describeMembers(shown, of: names.table.count))\n"
}

private func describe(_ health: HealthSettings) -> String {
    let probe =
        switch health.probe {
        case .off: "off"
        case .tcp: "tcp"
        case .expect(let bytes): "expect \(jsonString(String(decoding: bytes, as: UTF8.self)))"
        case .tls(let name): "tls" + (name.map { " sni \($0)" } ?? "")
        }
    let policy = health.ejection.pointee
    let ejection =
        policy.after == 0
        ? "off" : "after \(policy.after) for \(policy.base.configText) max \(policy.max.configText)"
    return """
        health \(health.name)
            probe \(probe), interval \(health.interval.configText) jitter \(health.jitterPercent)%, \
        timeout \(health.timeout.configText), rise \(health.rise), fall \(health.fall), rate \(health.probesPerSecond)/s
            eject \(ejection), panic \(health.panic == .useAll ? "use_all" : "fail_fast")

        """
}

private func describe(_ limit: LimitTable) -> String {
    let settings = limit.settings
    var parts: [String] = []
    if let rate = settings.rate {
        parts.append("\(rate.count) connections in \(rate.period.configText), burst \(rate.burst)")
    }
    if let concurrent = settings.concurrent { parts.append("\(concurrent) at once") }
    for (way, rate) in [("up", settings.bytesUp), ("down", settings.bytesDown)] {
        if let rate { parts.append("\(rate.bytesPerSecond) bytes/s \(way), burst \(rate.burst)") }
    }
    return """
        limit \(limit.name)
            by \(settings.key.text): \(parts.joined(separator: "; "))
            at most \(limit.capacity) entries, new keys are refused when they are in use

        """
}

extension LimitKey {
    fileprivate var text: String {
        switch self {
        case .client(let v6, let v4): "client/\(v6) v4/\(v4)"
        case .route: "route"
        case .env: "env"
        case .org: "org"
        case .instance: "instance"
        case .listener: "listener"
        }
    }
}

private func describe(_ chain: Chain) -> String {
    var text = "pipeline \(chain.name)\n"
    if chain.peekBytes > 0 {
        let limit = chain.peekTimeout.map { "within \($0.configText)" } ?? "without deadline"
        let how = chain.gates ? "gates the client's bytes" : "before the backend is connected"
        text += "    peeks up to \(chain.peekBytes) bytes \(limit), \(how)\n"
    } else {
        text += "    peeks nothing\n"
    }
    var known: Set<Fact> = []
    for (index, stage) in chain.stages.buffer.enumerated() {
        known.formUnion(stage.facts.gives)
        text += "    \(index + 1). \(stage.source)\(stage.shadow ? "  [shadow]" : "")\n"
        text += "        state \(stage.stateIndex), reasons from \(stage.reasonBase)"
        if let peek = stage.peek {
            text += ", peeks \(peek.bytes) bytes, \(peek.timeout?.configText ?? "no deadline")"
        }
        let facts = Fact.allCases.filter { known.contains($0) }.map(\.rawValue)
        text += "; known after it: \(facts.isEmpty ? "nothing" : facts.joined(separator: ", "))\n"
        switch chain.turn(of: index) {
        case .inOrder: break
        case .atAccept: text += "        runs at accept\n"
        case .atAcceptUnless(let other):
            text += "        runs at accept; for whom stage \(other + 1) may replace the address, once it has\n"
        }
    }
    return text
}
