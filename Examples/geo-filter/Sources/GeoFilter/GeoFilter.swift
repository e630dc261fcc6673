import Pipeline
import PipelineSets

/// `geo by NAME, deny COUNTRY …` or `geo by NAME, allow COUNTRY …`: lets clients through, or refuses them, by the country
/// that their address is in. With `allow`, who is in no country that the database has is refused.
public enum GeoFilter: Filter {
    public struct Settings: Sendable {
        /// The block's, which the stage keeps alive.
        let table: PrefixTable
        /// One for each country: is it named?
        let isNamed: FrozenArray<Bool>
        let allows: Bool
    }

    public static let descriptor = FilterDescriptor(
        keyword: "geo",
        summary: "allows or denies by the country of the client's address",
        reads: [.client],
        clauses: [
            ClauseSpec(
                "by", [.word("by"), .block(name: "database", GeoDatabase.block.kind)], required: true,
                summary: "the `geodb` block that says where an address is"),
            ClauseSpec(
                "countries", [.choice(name: "action", ["allow", "deny"]), .list(Country.kind, limit: 676)],
                required: true, summary: "who may pass, or who may not"),
        ],
        reasons: [ReasonSpec("denied_country", .client, "The client's country is denied, or is none that is allowed.")],
        blocks: [GeoDatabase.block])

    public static func settings(_ directive: Directive) throws(SettingsError) -> Settings {
        guard let database = directive.block("by") as? GeoDatabase, let countries = directive.first("countries") else {
            throw SettingsError("`geo` needs a database and countries", remedy: "write `geo by NAME, deny COUNTRY`")
        }
        guard let table = database.table else {
            throw SettingsError(
                "`\(database.name)` has too many prefixes", remedy: "use fewer and wider ones", clause: "by")
        }
        var isNamed = [Bool](repeating: false, count: Int(Country.letters * Country.letters))
        for case .count(let number) in countries.values { isNamed[Int(clamping: number)] = true }
        return Settings(
            table: table, isNamed: FrozenArray(isNamed), allows: countries.word() == "allow")
    }

    public static func evaluate(
        _ settings: Settings, _ state: inout Void, _ view: ConnectionView, _ effects: Effects
    ) -> Verdict {
        isNamed(settings, view) == settings.allows ? .next : .refuse(0)
    }

    private static func isNamed(_ settings: Settings, _ view: ConnectionView) -> Bool {
        let country = Int(settings.table.value(of: view.facts.client.endpoint.address))
        return country < settings.isNamed.count && settings.isNamed[country]
    }

    public static func explain(_ settings: Settings, _ view: ConnectionView, _ verdict: Verdict) -> String {
        let country = settings.table.value(of: view.facts.client.endpoint.address)
        let place = country == PrefixTable.none ? "no country that is known" : Country.text(country)
        return
            "\(view.facts.client.endpoint.address) is in \(place), which is \(verdict == .next ? "let in" : "refused")"
    }

    public static func dispose(_ settings: Settings) { settings.isNamed.deallocate() }
}
