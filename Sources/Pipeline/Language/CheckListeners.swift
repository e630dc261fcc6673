import Pipeline

/// R8: how the ports of ``NodeSettings/deniedPorts`` are written.
enum DeniedPorts {
    static func text(_ range: ClosedRange<UInt16>) -> String {
        range.count == 1 ? "\(range.lowerBound)" : "\(range.lowerBound)-\(range.upperBound)"
    }
}

extension Checker {
    func checkListeners(_ listens: [EntrySyntax], exposes exposeEntries: [EntrySyntax]) {
        var places: [Endpoint: [Located<ListenerSpec>]] = [:]
        var ports = 0
        for entry in listens where !reporter.isFull && hasRoom(entry) {
            guard let listener = checkedListener(entry) else { continue }
            if isTaken(listener, places) || hasTooManyPorts(listener, ports) { continue }
            for port in listener.value.ports {
                places[Endpoint(listener.value.endpoint.address, port), default: []].append(listener)
            }
            ports += listener.value.ports.count
            listeners.append(listener)
        }
        for entry in exposeEntries where !reporter.isFull && hasRoom(entry) {
            guard let expose = checkedExpose(entry), !overlaps(expose) else { continue }
            exposes.append(expose)
        }
    }

    /// The same port at two interfaces is two listeners.
    private func isTaken(
        _ listener: Located<ListenerSpec>, _ places: [Endpoint: [Located<ListenerSpec>]]
    ) -> Bool {
        let options = listener.value.options
        for port in listener.value.ports {
            let endpoint = Endpoint(listener.value.endpoint.address, port)
            guard let other = places[endpoint]?.first(where: { $0.value.options.overlaps(options) }) else { continue }
            guard other.value.options.interface != options.interface else {
                return isDuplicate("`listen \(endpoint)`", listener.span, firstAt: other.span)
            }
            let interface = options.interface ?? other.value.options.interface ?? ""
            reporter.error(
                listener.span,
                "\(endpoint) has a listener for all interfaces and one for \(interface): the kernel may choose either",
                help: "give each of them an interface, or remove one", related: [.init(other.span, "the other is here")]
            )
            return true
        }
        return false
    }

    /// Reported once.
    private func hasTooManyPorts(_ listener: Located<ListenerSpec>, _ before: Int) -> Bool {
        guard before + listener.value.ports.count > Checker.listenerPortLimit else { return false }
        if reportedUses.insert("listen ports").inserted {
            reporter.error(
                listener.span, "the `listen` lines have more than \(Checker.listenerPortLimit) ports",
                help: "write `expose` for a range of which few are used: a port of it opens when a route asks for it")
        }
        return true
    }

    private func hasRoom(_ entry: EntrySyntax) -> Bool {
        guard listeners.count + exposes.count >= Checker.listenerLimit else { return true }
        reporter.error(entry.keyword.span, "more than \(Checker.listenerLimit) `listen` and `expose` lines")
        return false
    }

    // MARK: listen

    private func checkedListener(_ entry: EntrySyntax) -> Located<ListenerSpec>? {
        var words = WordCursor(self, entry)
        guard
            let address = words.next("an address and a port like `[::]:443`"),
            let kindWord = words.next(orList(Checker.listenKinds.map { "`\($0)`" }), candidates: Checker.listenKinds)
        else { return nil }
        let place = parsed(address) { text throws(ValueProblem) in try ConfigValue.endpoints(text) }
        let mode = ListenerMode(rawValue: kindWord.text).flatMap { $0.intercepts ? $0 : nil } ?? .direct
        // Intercepted connections may be of any protocol, and the server may speak first (R2).
        let hint = mode.intercepts ? .tcpRaw : checkedHint(kindWord, among: Checker.listenKinds)
        guard words.expect("via"), let pipeline = words.next("a pipeline's name") else { return nil }
        let remedy = mode.intercepts ? "" : ", or listen with `tls_passthrough`"
        let options = checkedOptions(words.rest, of: entry.keyword, mode)
        let chain = checkedUse(pipeline, hint: hint, mode: mode, remedy: remedy)
        guard let place, isOpened(place, mode), let hint, let chain, let options else { return nil }
        return Located(
            ListenerSpec(
                endpoint: place.value.first, lastPort: place.value.last, hint: hint, chain: chain,
                line: line(entry.keyword.span), mode: mode, options: options), place.span)
    }

    /// False, reported, for ports that no listener of this mode has.
    private func isOpened(_ place: Located<(first: Endpoint, last: UInt16)>, _ mode: ListenerMode) -> Bool {
        let (first, last) = place.value
        guard first.port == last else {
            guard !mode.intercepts else {
                reporter.error(
                    place.span, "an intercepting listener has one port",
                    help: "write `\(first)`: connections to any port are brought to it")
                return false
            }
            return !isDenied(Located(first.port...last, place.span))
        }
        guard node.deniedPorts.contains(where: { $0.contains(last) }) else { return true }
        reporter.error(
            place.span, "port \(last) is never opened",
            help: "choose another, or take it out of `denied_ports` in `node`: now "
                + andList(node.deniedPorts.map(DeniedPorts.text)))
        return false
    }

    /// What follows the pipeline. Nil, reported, if it is wrong.
    private func checkedOptions(
        _ words: [WordSyntax], of keyword: WordSyntax, _ mode: ListenerMode = .direct
    ) -> ListenerOptions? {
        let clause: Clause
        do throws(ClauseFailure) {
            clause = try ClauseMatcher(isOneOfSeveral: false).match(words, ListenerWords.spec)
        } catch {
            report(error, words, of: keyword)
            return nil
        }
        if mode.intercepts,
            let word = words.first(where: { word in
                !ListenerWords.ofIntercepting.contains(word.text) && clause.option(word.text) != nil
            })
        {
            reporter.error(
                word.span, "`\(word.text)` has no place at an intercepting listener",
                help: "remove it: `intercept interface` in `node` says whose connections are intercepted")
            return nil
        }
        do throws(ValueProblem) {
            return try ListenerWords.read(clause)
        } catch {
            reporter.error((words.last ?? keyword).span, error.message, expected: error.expected, help: error.help)
            return nil
        }
    }

    /// A listener's mode or hint.
    static let listenKinds =
        ProtocolHint.allCases.map(\.name) + ListenerMode.allCases.filter(\.intercepts).map(\.rawValue)

    /// - Parameter names: all that may stand there.
    private func checkedHint(_ word: WordSyntax, among names: [String]) -> ProtocolHint? {
        if let hint = ProtocolHint(name: word.text) { return hint }
        reporter.error(
            word.span, "unexpected \(quoted(word.text))", expected: orList(names.map { "`\($0)`" }),
            help: suggestion(for: word.text, among: names))
        return nil
    }

    // MARK: expose

    /// Stands for each env's dedicated IPv4 address (R9).
    static let dedicated = "dedicated_ipv4"

    private func checkedExpose(_ entry: EntrySyntax) -> Located<ExposeSpec>? {
        var words = WordCursor(self, entry)
        guard
            let addressWord = words.next(
                "an address like `[::]`, or `\(Checker.dedicated)`", candidates: [Checker.dedicated]),
            words.expect("ports"), let portsWord = words.next("ports like `10000-19999`")
        else { return nil }
        // Raw, unless the line says what it is.
        let hint =
            words.isNext("via")
            ? .tcpRaw
            : words.next("`via`, or a hint").flatMap {
                checkedHint($0, among: ProtocolHint.allCases.map(\.name))
            }
        guard let hint, words.expect("via"), let pipeline = words.next("a pipeline's name") else { return nil }
        let options = checkedOptions(words.rest, of: entry.keyword)
        let isDedicated = addressWord.text == Checker.dedicated
        let address =
            isDedicated
            ? Located(.unspecifiedV4, addressWord.span)
            : parsed(addressWord) { text throws(ValueProblem) in try ConfigValue.listenAddress(text) }
        let ports = parsed(portsWord) { text throws(ValueProblem) in try ConfigValue.ports(text) }
        let chain = checkedUse(pipeline, hint: hint, remedy: ", or write `tls_passthrough` before `via`")
        guard let ports, !isDenied(ports), let address, let chain, let options else { return nil }
        return Located(
            ExposeSpec(
                address: address.value, ports: ports.value, hint: hint, chain: chain,
                line: line(entry.keyword.span), isDedicated: isDedicated, options: options),
            addressWord.span.through(portsWord.span))
    }

    /// True, reported, if every port of the range is denied.
    private func isDenied(_ ports: Located<ClosedRange<UInt16>>) -> Bool {
        let denied = node.deniedPorts.filter { $0.overlaps(ports.value) }.map { $0.clamped(to: ports.value) }
        guard !denied.isEmpty else { return false }
        let list = andList(denied.map(DeniedPorts.text))
        let isOne = denied.count == 1 && denied[0].count == 1
        if denied.reduce(0, { $0 + $1.count }) == ports.value.count {
            reporter.error(
                ports.span, isOne ? "port \(list) is never opened" : "ports \(list) are never opened",
                help: "remove this line")
            return true
        }
        reporter.note(
            ports.span,
            isOne
                ? "port \(list) stays closed, though the range contains it"
                : "ports \(list) stay closed, though the range contains them")
        return false
    }

    /// True, reported, if another range has one of its ports, so that the pipeline is ambiguous.
    private func overlaps(_ expose: Located<ExposeSpec>) -> Bool {
        let ports = expose.value.ports
        let same = { (other: ExposeSpec) in
            other.address == expose.value.address && other.isDedicated == expose.value.isDedicated
                && other.options.overlaps(expose.value.options)
        }
        if let other = exposes.first(where: { same($0.value) && $0.value.ports.overlaps(ports) }) {
            reporter.error(
                expose.span, "these ports are exposed twice", help: "make the ranges disjoint",
                related: [.init(other.span, "the first is here")])
            return true
        }
        for listener in listeners.lazy.map(\.value)
        where !expose.value.isDedicated && listener.endpoint.address == expose.value.address
            && listener.options.overlaps(expose.value.options) && listener.ports.overlaps(ports)
        {
            let both = listener.ports.clamped(to: ports)
            let (what, stay) = both.count == 1 ? ("port", "stays") : ("ports", "stay")
            reporter.note(
                expose.span,
                "\(what) \(DeniedPorts.text(both)) \(stay) with `listen \(listener.placeText)` (\(listener.line))")
        }
        return false
    }

    // MARK: The pipeline that a line names

    /// The index of the pipeline, if it fits a listener with this hint. Nil, reported, if not. `remedy` is an
    /// alternative to another pipeline for a raw listener.
    private func checkedUse(
        _ word: WordSyntax, hint: ProtocolHint?, mode: ListenerMode = .direct, remedy: String
    ) -> Int? {
        guard let index = pipelineIndex[word.text] else {
            reporter.error(
                word.span, "no pipeline is named \(quoted(word.text))",
                help: misspelling(of: word.text, among: pipelines.map(\.name)) ?? "add `pipeline \(word.text) { ... }`")
            return nil
        }
        let pipeline = pipelines[index]
        guard let hint, pipeline.isComplete else { return nil }
        let errorsBefore = reporter.errorCount
        if pipeline.firstIndex(giving: .backend) == nil, isFirstReport("backend", pipeline) {
            reporter.error(
                word.span, "the pipeline `\(pipeline.name)` never selects a backend", help: addGiver(of: .backend),
                related: [.init(pipeline.nameSpan, "`\(pipeline.name)` is here")])
        }
        requireDestination(pipeline, word, mode)
        switch hint {
        case .tlsPassthrough: requireName(pipeline, word)
        case .tcpRaw: refuseWaiting(pipeline, word, remedy)
        }
        return reporter.errorCount == errorsBefore ? index : nil
    }

    private func isFirstReport(_ what: String, _ pipeline: CheckedPipeline) -> Bool {
        reportedUses.insert("\(what) \(pipeline.name)").inserted
    }

    private func addGiver(of fact: Fact) -> String? {
        let givers = catalog.filter { $0.descriptor.gives.contains(fact) }.map { "`\($0.descriptor.keyword)`" }
        return givers.isEmpty ? nil : "add \(orList(givers)) to it"
    }

    /// A pipeline with `original_destination` behind a listener that does not intercept would connect to that listener
    /// in a loop; an intercepting listener needs such a pipeline.
    private func requireDestination(_ pipeline: CheckedPipeline, _ word: WordSyntax, _ mode: ListenerMode) {
        guard let backend = pipeline.firstIndex(giving: .backend) else { return }
        let stage = pipeline.stages[backend]
        guard let facts = stage.stage?.facts, facts.capabilities.contains(.connectsToDestination) != mode.intercepts,
            isFirstReport("destination \(mode.intercepts)", pipeline)
        else { return }
        let related = Diagnostic.Related(stage.keyword.span, "`\(stage.name)` is here")
        if mode.intercepts {
            reporter.error(
                word.span,
                "`\(mode.rawValue)` relays to original destinations, but `\(pipeline.name)` relays to "
                    + "routes",
                help: "write `\(stage.name) original_destination` in it, or use another pipeline", related: [related])
        } else {
            reporter.error(
                word.span,
                "`\(pipeline.name)` connects to original destinations, which for this listener is the listener itself",
                help: "listen with `transparent` or `redirect`, or use another pipeline", related: [related])
        }
    }

    private func requireName(_ pipeline: CheckedPipeline, _ word: WordSyntax) {
        guard pipeline.firstIndex(giving: .serverName) == nil, isFirstReport("name", pipeline) else { return }
        reporter.error(
            word.span,
            "a `tls_passthrough` listener routes by server name, but no stage of `\(pipeline.name)` provides it",
            help: addGiver(of: .serverName), related: [.init(pipeline.nameSpan, "`\(pipeline.name)` is here")])
    }

    /// R2: a raw route is never peeked, or a server that speaks first would wait for its client.
    private func refuseWaiting(_ pipeline: CheckedPipeline, _ word: WordSyntax, _ remedy: String) {
        for stage in pipeline.stages {
            let gives = stage.facts.gives.contains(.serverName)
            let waits = stage.stage?.peek != nil && !stage.descriptor.isNonBlocking
            guard gives || waits, isFirstReport("raw \(stage.line)", pipeline) else { continue }
            reporter.error(
                word.span,
                "a raw listener never waits for the client's first bytes, but `\(stage.name)` (\(stage.line)) "
                    + "does",
                help: "use a pipeline without `\(stage.name)`\(gives ? remedy : "")",
                related: [.init(stage.keyword.span, "`\(stage.name)` is here")])
        }
    }
}
