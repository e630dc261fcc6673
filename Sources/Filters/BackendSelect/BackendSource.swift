import Pipeline

/// `source`: where connections to backends come from.
extension BackendFilter {
    static let sourceKind = ValueKind("ADDRESS", expected: ConfigValue.sourceForm) { text throws(ValueProblem) in
        .custom(try ConfigValue.sourceRange(text))
    }

    /// Nil: the directive says nothing.
    static func sourceSpec(_ directive: Directive) throws(SettingsError) -> SourceSpec? {
        let mine = try one(of: ["source", "source_client"], "addresses", directive, or: "client")
        guard let mine else { return nil }
        guard mine.name == "source" else { return .client }
        do throws(ValueProblem) {
            return try SourceSpec.of(mine.customs(as: AddressRange.self))
        } catch {
            throw SettingsError(error.message, remedy: error.help ?? "remove one of them", clause: mine.name)
        }
    }

    public static func dispose(_ settings: Settings) {
        if let source = settings.source { SourceAddresses.free(source) }
    }

    /// Nil: the kernel chooses.
    static func source(of route: FoundRoute, _ settings: Settings) -> UnsafePointer<SourceAddresses>? {
        let source = route.group.pointee.policy?.pointee.source ?? settings.source
        guard let source, !source.pointee.isKernel else { return nil }
        return source
    }

    public static func review(_ config: ConfigReview) -> [ConfigRemark] {
        guard config.capabilities.contains(.appearsAsClient) else { return [] }
        let note = SourceSpec.clientNote
        return [ConfigRemark(.note, at: .stage(.appearsAsClient), note.text, help: note.help)]
    }

    // MARK: Explaining

    /// `, from one of 3 addresses`; empty: the kernel chooses.
    static func fromWhere(
        _ route: FoundRoute, _ backend: UnsafePointer<Backend>, _ settings: Settings, _ view: ConnectionView
    ) -> String {
        let endpoint = backend.pointee.address.endpoint
        guard let source = source(of: route, settings), !endpoint.isUnixSocket else { return "" }
        if source.pointee.isClient { return ", from the client's own address \(view.facts.client.endpoint.address)" }
        let isIPv4 = endpoint.address.isIPv4
        let count = source.pointee.count(isIPv4: isIPv4)
        guard count > 0 else { return "" }
        let first = source.pointee.address(0, isIPv4: isIPv4).address
        return count == 1 ? ", from \(first)" : ", from one of \(count) addresses (\(first) …)"
    }

    /// Why no backend can be connected to.
    static func sourceMiss(
        _ route: FoundRoute, _ settings: Settings, _ view: ConnectionView
    ) -> String {
        guard source(of: route, settings)?.pointee.isClient == true else {
            return ", none of which is of a family that `source` has an address of"
        }
        let client = view.facts.client.endpoint.address
        return ", none of which is \(client.isIPv4 ? "IPv4" : "IPv6"), as the client is (`source client`)"
    }
}
