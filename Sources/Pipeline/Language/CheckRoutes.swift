import Pipeline

/// A `route` block: well-formed fields and their positions. The routing side decides whether it is served.
package struct RouteBlock: Sendable {
    package struct Owner: Sendable, Hashable {
        package let org: String
        package let app: String
        package let env: String
    }

    /// The word `route`, and the hostname if there is one.
    package let span: SourceSpan
    /// As written, not canonical; nil: a raw TCP route, bound by its port alone.
    package let hostname: Located<String>?
    package let id: Located<String>
    package let owner: Located<Owner>
    /// 1...65535.
    package let listen: Located<UInt16>
    /// At least one; ports 1...65535.
    package let backends: [Located<BackendSpec>]
    /// True for `v2`; nil: not given, which means `off`.
    package let proxyV2: Located<Bool>?
    package let backendExpectsProxy: Located<Bool>?
    package let allowNonTLS: Located<Bool>?
    /// Nil: as the `backend` stage says.
    package let balance: Located<Balance>?
    /// At least 1; nil: no limit.
    package let maxConnections: Located<UInt32>?
    /// Nil: as the `backend` stage says.
    package let health: Located<RouteHealth>?

    package var hint: ProtocolHint { hostname == nil ? .tcpRaw : .tlsPassthrough }
}

extension Checker {
    static let routeFields = [
        "id", "owner", "listen", "backend", "proxy_protocol", "backend_expects_proxy_protocol", "allow_non_tls",
        "balance", "max_connections", "health",
    ]

    func checkRoutes(_ entries: [EntrySyntax]) {
        for entry in entries where !reporter.isFull {
            if let route = checkedRoute(entry) { routes.append(route) }
        }
    }

    private struct RouteFields {
        var id: Located<String>?
        var owner: Located<RouteBlock.Owner>?
        var listen: Located<UInt16>?
        var backends: [Located<BackendSpec>] = []
        var proxyV2: Located<Bool>?
        var backendExpectsProxy: Located<Bool>?
        var allowNonTLS: Located<Bool>?
        var balance: Located<Balance>?
        var maxConnections: Located<UInt32>?
        var health: Located<RouteHealth>?
    }

    private func checkedRoute(_ entry: EntrySyntax) -> RouteBlock? {
        let errorsBefore = reporter.errorCount
        let words = arguments(of: entry) ?? []
        if words.count > 1 {
            reporter.error(
                words[1].span, "unexpected \(quoted(words[1].text))", expected: "`{`",
                help: "write one `route` block a hostname")
        }
        var fields = RouteFields()
        var seen: [String: SourceSpan] = [:]
        for line in entry.body?.entries ?? [] where !reporter.isFull { checkRouteField(line, &fields, &seen) }
        let missing = ["id", "owner", "listen", "backend"].filter { seen[$0] == nil }
        if !missing.isEmpty {
            reporter.report(
                Diagnostic(
                    .error, at: entry.headSpan, "the route has no \(andList(missing.map { "`\($0)`" }))",
                    help: missing.map(Checker.example(of:))))
        }
        guard reporter.errorCount == errorsBefore, let id = fields.id, let owner = fields.owner,
            let listen = fields.listen
        else { return nil }
        warnIfWeightless(fields.backends, at: entry.headSpan)
        return RouteBlock(
            span: entry.headSpan, hostname: words.first.map { Located($0.text, $0.span) }, id: id, owner: owner,
            listen: listen, backends: fields.backends, proxyV2: fields.proxyV2,
            backendExpectsProxy: fields.backendExpectsProxy, allowNonTLS: fields.allowNonTLS,
            balance: fields.balance, maxConnections: fields.maxConnections, health: fields.health)
    }

    private static func example(of field: String) -> String {
        switch field {
        case "id": "add a line like `id rt_web`: a name for logs and status"
        case "owner": "add a line like `owner acme/shop/prod`: whose traffic this is"
        case "listen": "add a line like `listen 443`"
        default: "add a line like `backend [fd00::10]:8443`"
        }
    }

    private func checkRouteField(
        _ entry: EntrySyntax, _ fields: inout RouteFields, _ seen: inout [String: SourceSpan]
    ) {
        let keyword = entry.keyword
        guard Checker.routeFields.contains(keyword.text) else {
            reporter.error(
                keyword.span, "`route` has no field \(quoted(keyword.text))",
                expected: orList(Checker.routeFields.map { "`\($0)`" }),
                help: suggestion(for: keyword.text, among: Checker.routeFields))
            return
        }
        if let body = entry.body {
            reporter.error(body.opening, "`\(keyword.text)` takes no block", help: "write its value on the same line")
        }
        let first = seen[keyword.text]
        seen[keyword.text] = first ?? entry.headSpan
        if keyword.text != "backend", isDuplicate("`\(keyword.text)`", entry.headSpan, firstAt: first) { return }
        guard let words = arguments(of: entry) else { return }
        if keyword.text == "backend" {
            checkBackends(words, keyword, &fields)
        } else if let word = onlyWord(words, of: keyword, expected: Checker.valueForm(of: keyword.text)) {
            checkRouteValue(keyword.text, word, &fields)
        }
    }

    private static func valueForm(of field: String) -> String {
        switch field {
        case "id": "a name"
        case "owner": "ORG/APP/ENV"
        case "listen": "a port"
        case "proxy_protocol": "`v2` or `off`"
        case "balance": orList(Balance.allCases.map { "`\($0.name)`" })
        case "max_connections": "a number of connections"
        case "health": "the name of a `health` block or `off`"
        default: "`true` or `false`"
        }
    }

    private func checkRouteValue(_ field: String, _ word: WordSyntax, _ fields: inout RouteFields) {
        switch field {
        case "id": fields.id = parsed(word) { text throws(ValueProblem) in try ConfigValue.identifier(text) }
        case "owner": fields.owner = parsed(word) { text throws(ValueProblem) in try ConfigValue.owner(text) }
        case "listen": fields.listen = parsed(word) { text throws(ValueProblem) in try ConfigValue.port(text) }
        case "proxy_protocol": fields.proxyV2 = choice(word, ["v2", "off"])
        case "balance":
            let names = Balance.allCases.map(\.name)
            guard let index = choiceIndex(word, names) else { return }
            fields.balance = Located(Balance.allCases[index], word.span)
        case "max_connections":
            fields.maxConnections = parsed(word) { text throws(ValueProblem) in
                UInt32(clamping: try ConfigValue.count(text, 1...UInt64(UInt32.max)))
            }
        case "health": fields.health = routeHealth(word)
        case "backend_expects_proxy_protocol": fields.backendExpectsProxy = choice(word, ["true", "false"])
        default: fields.allowNonTLS = choice(word, ["true", "false"])
        }
    }

    private func routeHealth(_ word: WordSyntax) -> Located<RouteHealth>? {
        if word.text == "off" { return Located(.off, word.span) }
        guard let block = blocks.find(.health, word.text) as? any RouteHealthBlock else {
            reporter.error(
                word.span, "no health is named \(quoted(word.text))", expected: "the name of a `health` block or `off`",
                help: suggestion(for: word.text, among: blocks.names(.health) + ["off"])
                    ?? "add `health \(word.text) { ... }`")
            return nil
        }
        usedBlocks.insert(ObjectIdentifier(block))
        return Located(block.routeHealth, word.span)
    }

    /// True for the first option, false for the second.
    private func choice(_ word: WordSyntax, _ options: [String]) -> Located<Bool>? {
        choiceIndex(word, options).map { Located($0 == 0, word.span) }
    }

    private func choiceIndex(_ word: WordSyntax, _ options: [String]) -> Int? {
        if let index = options.firstIndex(of: word.text) { return index }
        reporter.error(
            word.span, "unexpected \(quoted(word.text))", expected: orList(options.map { "`\($0)`" }),
            help: suggestion(for: word.text, among: options))
        return nil
    }

    private func checkBackends(_ words: [WordSyntax], _ keyword: WordSyntax, _ fields: inout RouteFields) {
        if words.isEmpty {
            reporter.error(
                keyword.span.behind, "`backend` is not complete", expected: "addresses like `[fd00::10]:8443`")
        }
        let addresses = words.prefix { !Checker.backendOptions.contains($0.text) }
        guard let options = backendOptions(addresses, words.dropFirst(addresses.count), keyword) else { return }
        for word in addresses where !reporter.isFull {
            if let help = ForeignWords.help(for: word.text, among: Checker.backendOptions) {
                reporter.error(
                    word.span, "unexpected \(quoted(word.text))",
                    expected: Checker.backendOptionsExpected, help: help)
                continue
            }
            guard let endpoint = parsed(word, { text throws(ValueProblem) in try ConfigValue.backend(text) }) else {
                continue
            }
            // Linear on purpose: a route has a handful, and a long list is bounded by what is kept.
            let first = fields.backends.first { $0.value.endpoint == endpoint.value }?.span
            if isDuplicate("the backend \(quoted(word.text))", word.span, firstAt: first) { continue }
            guard fields.backends.count < 1024 else {
                reporter.error(word.span, "more than 1024 backends in one route")
                return
            }
            fields.backends.append(
                Located(
                    BackendSpec(
                        endpoint.value, weight: options.weight?.value ?? 1,
                        maxConnections: options.maxConnections?.value ?? 0, priority: options.priority?.value ?? 0),
                    endpoint.span))
        }
    }

    private static let backendOptions = ["weight", "max", "priority", "backup"]
    private static let backendOptionsExpected = orList(backendOptions.map { "`\($0)`" } + ["the end of the line"])

    private struct BackendOptions {
        var weight: Located<UInt16>?
        var maxConnections: Located<UInt32>?
        var priority: Located<UInt8>?
    }

    /// `weight 3 max 100 backup` after a single address. Nil, reported, if they can't be read.
    private func backendOptions(
        _ addresses: ArraySlice<WordSyntax>, _ words: ArraySlice<WordSyntax>, _ keyword: WordSyntax
    ) -> BackendOptions? {
        var options = BackendOptions()
        guard let option = words.first else { return options }
        guard addresses.count == 1 else {
            reporter.error(
                option.span, "`\(option.text)` applies to one backend, but this line has \(addresses.count)",
                help: "write a `backend` line for each backend that has options")
            return nil
        }
        var rest = words
        while let option = rest.popFirst() {
            guard Checker.backendOptions.contains(option.text) else {
                reporter.error(
                    option.span, "unexpected \(quoted(option.text))", expected: Checker.backendOptionsExpected,
                    help: suggestion(for: option.text, among: Checker.backendOptions))
                return nil
            }
            guard readBackendOption(option, &rest, &options) else { return nil }
        }
        return options
    }

    private func readBackendOption(
        _ option: WordSyntax, _ rest: inout ArraySlice<WordSyntax>, _ options: inout BackendOptions
    ) -> Bool {
        if option.text == "backup" {
            if isDuplicate("the priority", option.span, firstAt: options.priority?.span) { return false }
            options.priority = Located(BackendSpec.backupPriority, option.span)
            return true
        }
        guard let word = rest.popFirst() else {
            reporter.error(option.span.behind, "`\(option.text)` is not complete", expected: "a number")
            return false
        }
        let number = { (range: ClosedRange<UInt64>) in
            self.parsed(word) { text throws(ValueProblem) in try ConfigValue.count(text, range) }
        }
        switch option.text {
        case "weight":
            if isDuplicate("`weight`", option.span, firstAt: options.weight?.span) { return false }
            options.weight = number(0...UInt64(BackendSpec.weightLimit))
                .map { Located(UInt16(clamping: $0.value), option.span) }
            return options.weight != nil
        case "priority":
            if isDuplicate("the priority", option.span, firstAt: options.priority?.span) { return false }
            options.priority = number(0...UInt64(BackendSpec.backupPriority))
                .map { Located(UInt8(clamping: $0.value), option.span) }
            return options.priority != nil
        default:
            if isDuplicate("`max`", option.span, firstAt: options.maxConnections?.span) { return false }
            options.maxConnections = number(1...UInt64(UInt32.max))
                .map { Located(UInt32(clamping: $0.value), option.span) }
            return options.maxConnections != nil
        }
    }

    /// Weight 0 means none, so a route of nothing else refuses everybody.
    private func warnIfWeightless(_ backends: [Located<BackendSpec>], at span: SourceSpan) {
        guard !backends.isEmpty, backends.allSatisfy({ $0.value.weight == 0 }) else { return }
        reporter.report(
            Diagnostic(
                .warning, at: span, "every backend of the route has `weight 0`: it gets no connections",
                help: ["give one of them a weight of 1 or more"]))
    }

    func checkRouteSources(_ entries: [EntrySyntax]) {
        var first: SourceSpan?
        for entry in entries where !reporter.isFull {
            if isDuplicate("`routes`", entry.headSpan, firstAt: first) { continue }
            guard let words = arguments(of: entry) else { continue }
            guard let kind = words.first, kind.text == "file" else {
                report(
                    ClauseFailure(
                        progress: 0, message: words.first.map { "unexpected \(quoted($0.text))" },
                        expected: ["`file`"], candidates: ["file"]), words, of: entry.keyword)
                continue
            }
            guard let path = onlyWord(Array(words.dropFirst()), of: kind, expected: "the path of a state file") else {
                continue
            }
            guard !path.text.isEmpty, path.text.utf8.count <= 4096 else {
                reporter.error(path.span, "the path is empty or too long", expected: "1 to 4096 bytes")
                continue
            }
            routesFile = Located(path.text, path.span)
            first = entry.headSpan
        }
    }
}

extension ConfigValue {
    /// An id of the platform: letters, digits, `_`, `-`, `.`, `:`; at most 128.
    static func identifier(_ text: String) throws(ValueProblem) -> String {
        guard isIdentifier(text) else {
            throw ValueProblem(
                message: "\(quoted(text)) is not an id", expected: "letters, digits, `_`, `-`, `.` or `:`, at most 128")
        }
        return text
    }

    static func owner(_ text: String) throws(ValueProblem) -> RouteBlock.Owner {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 3, parts.allSatisfy(isIdentifier) else {
            throw ValueProblem(
                message: "\(quoted(text)) is not an owner", expected: "ORG/APP/ENV, like `acme/shop/prod`")
        }
        return RouteBlock.Owner(org: parts[0], app: parts[1], env: parts[2])
    }

    private static func isIdentifier(_ text: String) -> Bool {
        (1...128).contains(text.utf8.count)
            && text.utf8.allSatisfy { c in
                (c | 0x20 >= 0x61 && c | 0x20 <= 0x7A) || (c >= 0x30 && c <= 0x39) || c == 0x5F || c == 0x2D
                    || c == 0x2E || c == 0x3A
            }
    }

    /// R10: instances have IPv6 overlay addresses. A `route` block also takes IPv4, for sites without an overlay.
    static func backend(_ text: String) throws(ValueProblem) -> Endpoint {
        let endpoint: Endpoint
        do throws(ValueProblem) {
            endpoint = try ConfigValue.endpoint(text)
        } catch {
            throw ValueProblem(
                message: error.message, expected: "an address and a port like `[fd00::10]:8443`")
        }
        guard !endpoint.address.isUnspecified else {
            throw ValueProblem(
                message: "\(quoted(text)) can't be a backend", expected: "the address of an instance")
        }
        return endpoint
    }
}
