import Pipeline

/// `source ADDRESS …|client|off` of `route` and `backends` blocks.
extension Checker {
    /// Located at the line's first word behind the keyword.
    func source(_ words: [WordSyntax], _ keyword: WordSyntax) -> Located<SourceSpec>? {
        guard let first = words.first else {
            reporter.error(
                keyword.span.behind, "`source` is not complete",
                expected: "\(ConfigValue.sourceForm), `client` or `off`")
            return nil
        }
        if let alone: SourceSpec = ["client": .client, "off": .kernel][first.text] {
            guard words.count == 1 else {
                reporter.error(
                    words[1].span, "unexpected \(quoted(words[1].text))", expected: "the end of the line",
                    help: suggestion(for: words[1].text, among: [String]()))
                return nil
            }
            return Located(alone, first.span)
        }
        guard words.count <= SourceSpec.wordLimit else {
            reporter.error(
                words[SourceSpec.wordLimit].span, "more than \(SourceSpec.wordLimit) words in one `source`",
                help: "write prefixes, or ranges like `192.0.2.10-192.0.2.20`")
            return nil
        }
        let ranges = words.map { word in sourceRange(word) }
        // All of them are reported.
        guard !ranges.contains(where: { $0 == nil }) else { return nil }
        do throws(ValueProblem) {
            return Located(try SourceSpec.of(ranges.compactMap { $0 }), first.span)
        } catch {
            reporter.error(first.span, error.message, expected: error.expected, help: error.help)
            return nil
        }
    }

    private func sourceRange(_ word: WordSyntax) -> AddressRange? {
        do throws(ValueProblem) {
            return try ConfigValue.sourceRange(word.text)
        } catch {
            reporter.error(
                word.span, error.message, expected: error.expected,
                help: suggestion(for: word.text, among: ["client", "off"]) ?? error.help)
            return nil
        }
    }

    /// A `source` that no connection to these backends can come from, as far as the file says.
    func refuseIdleSource(_ source: Located<SourceSpec>?, _ backends: [Located<BackendSpec>]) {
        guard let source, !backends.isEmpty else { return }
        guard source.value == .kernel || !backends.allSatisfy({ $0.value.endpoint.isUnixSocket }) else {
            reporter.error(
                source.span, "each of these backends is a Unix socket, which has no source address",
                help: "remove `source`")
            return
        }
        guard let missed = backends.first(where: { !SourceSpec.mayReach($0.value, from: source.value) }) else { return }
        let family = missed.value.endpoint.address.isIPv4 ? "IPv4" : "IPv6"
        reporter.error(
            source.span, "`source` has no \(family) address for the backend \(missed.value.endpoint)",
            help: "add one, or write `source off`: the kernel then chooses for all of these backends",
            related: [.init(missed.span, "the backend is here")])
    }

    /// In a file without errors: backends that no address of their pipeline's `source` can be connected from. Another
    /// pipeline may lead to them as well, so this is no error.
    func warnOfStageSources() {
        let entrances =
            listeners.map { ($0.value.ports, $0.value.hint, $0.value.chain) }
            + exposes.map { ($0.value.ports, $0.value.hint, $0.value.chain) }
        let sources = entrances.compactMap { ports, hint, chain in
            pipelines[chain].stages.compactMap(\.facts.source).first.map { (ports, hint, chain, $0) }
        }
        guard !sources.isEmpty else { return }
        var said: Set<Int> = []
        for route in routes where route.source == nil {
            let here = sources.first { ports, hint, _, _ in
                hint == route.hint && route.ports.contains { ports.contains($0.value) }
            }
            guard let (_, _, chain, source) = here,
                let missed = route.backends.first(where: { !SourceSpec.mayReach($0.value, from: source) }),
                said.insert(missed.span.start).inserted
            else { continue }
            let family = missed.value.endpoint.address.isIPv4 ? "IPv4" : "IPv6"
            reporter.warning(
                missed.span,
                "`source` of the pipeline `\(pipelines[chain].name)` has no \(family) address: connections to "
                    + "\(missed.value.endpoint) are refused (`backend.source_family`)",
                help: "add one there, or write `source` in the route or its `backends` block")
        }
    }

    /// In a file without errors: what the network around this host has to do.
    func noteClientSources() {
        let blocks = routes.compactMap(\.own.source) + groupNames.compactMap { groups[$0]?.source }
        guard let first = blocks.filter({ $0.value == .client }).min(by: { $0.span.start < $1.span.start }) else {
            return
        }
        reporter.note(first.span, SourceSpec.clientNote.text, help: SourceSpec.clientNote.help)
    }

    /// All that routes and blocks say.
    var routeSources: [SourceSpec] {
        (routes.compactMap(\.own.source) + groupNames.compactMap { groups[$0]?.source }).map(\.value)
    }
}

extension SourceSpec {
    /// A name's addresses are not known before it is looked up, and a Unix socket has none.
    fileprivate static func mayReach(_ backend: BackendSpec, from source: SourceSpec) -> Bool {
        backend.name != nil || backend.endpoint.isUnixSocket || source.reaches(backend.endpoint.address)
    }
}
