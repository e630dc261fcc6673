import Pipeline

extension BackendFilter {
    public static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        guard settings.direct == .no else {
            if verdict == .refuse(Refusal.suspended.rawValue), let identity = view.facts.identity {
                return
                    "instance \(identity.pointee.id.string): env \(identity.pointee.owner.path), or its org, is suspended"
            }
            let whose = settings.direct == .fromClient ? "the instance's own address" : "an address of this host"
            return "is relayed to \(view.facts.destination.endpoint), from \(whose)"
        }
        guard let route = view.facts.route else { return missing(view) }
        var found = "route \(route.pointee.id.string) of env \(route.pointee.owner.pointee.name.path)"
        let group = route.group.pointee
        if !group.cell.pointee.name.buffer.isEmpty { found += ", backends \(group.cell.pointee.name.string)" }
        if verdict == .refuse(Refusal.proxyMismatch.rawValue) {
            return "\(found) and its backends disagree about the PROXY header, or the pipeline can't write one"
        }
        if verdict == .refuse(Refusal.suspended.rawValue) {
            let isWithdrawn = route.pointee.flags.contains(.withdrawn)
            return isWithdrawn ? "\(found) is withdrawn" : "\(found): the env, or its org, is suspended"
        }
        let backends = route.backends
        guard !backends.isEmpty else {
            return "\(found) has no backend: no instance is ready, or no name has an address"
        }
        if verdict == .refuse(Refusal.sourceFamily.rawValue) {
            return "\(found), \(backends.count) ready\(sourceMiss(route, settings, view))"
        }
        if verdict == .refuse(Refusal.routeFull.rawValue) {
            return "\(found) is at its limit of \(route.pointee.maxConnections) connections"
        }
        if verdict == .refuse(Refusal.groupFull.rawValue) {
            return "\(found), which are at their limit of \(group.maxConnections) connections"
        }
        if verdict == .wait, let offer = view.facts.queue { return found + waits(offer, route, view) }
        var text = "\(found), \(backends.count) ready\(out(backends, view))"
        let tries = (0..<Int(view.facts.candidates.count)).compactMap { view.facts.candidates[$0] }.map(described)
        guard !tries.isEmpty else { return text + overflow(route.group, view) }
        if settings.panic(of: route) == .useAll, !backends.buffer.contains(where: { $0.isEligible(at: view.now) }) {
            text += "; all are used anyway (panic)"
        }
        let balance = route.pointee.balance ?? settings.balance
        let priority = ofPriority(route.group, view)
        let from = view.facts.candidates[0].map { fromWhere(route, $0, settings, view) } ?? ""
        return "\(text); to try in order, by \(balance.name)\(priority): \(tries.joined(separator: ", "))\(from)"
    }

    /// Which limit is reached, and who waits for a place of it.
    private static func waits(_ offer: QueueOffer, _ route: FoundRoute, _ view: ConnectionView) -> String {
        let group = route.group.pointee
        let what =
            switch Refusal(rawValue: offer.ifFull) {
            case .routeQueueFull: " is at its limit of \(route.pointee.maxConnections) connections"
            case .groupQueueFull: ", which are at their limit of \(group.maxConnections) connections"
            default:
                ", whose backends are full: \(route.backends.count) ready\(out(route.backends, view))"
            }
        let (waiting, rule) = (offer.rule.queue.pointee.waiting.current, offer.rule)
        return
            "\(what); \(waiting) of at most \(rule.limit) wait for a place, each for \(rule.patience.configText) at most"
    }

    /// ` at priority 0, before backup`; nothing for a group with one priority.
    private static func ofPriority(_ group: UnsafePointer<BackendGroup>, _ view: ConnectionView) -> String {
        let tiers = group.pointee.tiers
        guard tiers.count > 1, let first = view.facts.candidates[0] else { return "" }
        let later = tiers.buffer.filter { $0.priority > first.pointee.priority }.map(\.name)
        let name = BackendSpec.name(ofPriority: first.pointee.priority)
        return " at \(name)" + (later.isEmpty ? "" : ", before \(later.joined(separator: ", "))")
    }

    /// Why a later priority is not used although the one in use is full.
    private static func overflow(_ group: UnsafePointer<BackendGroup>, _ view: ConnectionView) -> String {
        guard let index = group.pointee.tierInUse(at: view.now), index + 1 < group.pointee.tiers.count else {
            return ""
        }
        return
            "; \(group.pointee.tiers[index].name) is up and full, and a later priority takes over only when none of it"
            + " is up"
    }

    private static func missing(_ view: ConnectionView) -> String {
        let name = view.facts.serverName
        let destination = view.facts.destination.endpoint
        return name.isEmpty || view.facts.hint == .tcpRaw
            ? "no server name, and not exactly one \(view.facts.hint.name) route at \(destination)"
            : "no route for \(name.string) at \(destination)"
    }

    /// A backend of a `route` block has no instance but its address.
    private static func described(_ backend: UnsafePointer<Backend>) -> String {
        let (address, instance) = ("\(backend.pointee.address.endpoint)", backend.pointee.instance.string)
        return instance == address ? address : "\(address) (\(instance))"
    }

    /// The most backends that are named one by one.
    private static let namedLimit = 8

    /// `, out: [fd00::10]:8443 (i-1) by its probe, …`.
    private static func out(_ backends: FrozenArray<Backend>, _ view: ConnectionView) -> String {
        let reasons = (0..<backends.count).compactMap { index -> String? in
            let backend = backends.pointer(index)
            return why(backend, at: view.now).map { "\(described(backend)) \($0)" }
        }
        guard !reasons.isEmpty else { return "" }
        let rest = reasons.count - min(reasons.count, namedLimit)
        return ", out: " + reasons.prefix(namedLimit).joined(separator: ", ") + (rest > 0 ? " and \(rest) more" : "")
    }

    /// Why a backend is not eligible now; nil: it is.
    private static func why(_ backend: UnsafePointer<Backend>, at now: Instant) -> String? {
        guard backend.pointee.weight > 0 else { return "weight 0: no new connections" }
        let cell = backend.pointee.cell
        if cell.pointee.probe.load(ordering: .relaxed) == BackendCell.Probe.down.rawValue { return "probe down" }
        if cell.pointee.agentPercent.load(ordering: .relaxed) == 0 { return "drained by its agent" }
        let ejected = Instant(nanoseconds: cell.pointee.ejectedUntil.load(ordering: .relaxed))
        if ejected > now {
            return "ejected for \((ejected.since(now).milliseconds + 999) / 1000) more seconds"
        }
        return backend.isFull ? "full with \(backend.pointee.maxConnections) connections" : nil
    }
}
