import Pipeline
import Testing

@testable import PipelineLimits

@Suite("keys of limits") struct LimitKeyTests {
    /// Texts whose joined bytes, with or without a separator, are those of others.
    private static let rows = [
        ["a", "bc", "d"], ["ab", "c", "d"], ["a", "b", "cd"], ["abc", "d", ""], ["", "abc", "d"], ["a/bc", "d", ""],
        ["a", "bc/d", ""], ["abcdefgh", "", ""], ["", "abcdefgh", ""], ["abcdefgh\u{0}\u{0}", "", ""],
        ["acme", "shop", "prod"], ["globex", "web", "prod"], ["acme", "web", "prod"], ["acme", "prod", "shop"],
    ]

    @Test("R27: keys of limits differ where any of org, app, env and id does, also where they read the same in a row")
    func keys() throws {
        let table = try #require(
            LimitTable(
                name: "l", settings: LimitSettings(key: .env, concurrent: 1, entries: 8), seed: HashSeed(1, 2)))
        var texts: [FrozenText] = []
        defer { for text in texts { text.deallocate() } }
        func frozen(_ text: String) -> FrozenText {
            texts.append(FrozenText(text))
            return texts[texts.count - 1]
        }
        var seen: Set<[UInt64]> = []
        for row in Self.rows {
            for id in [nil, "", "i", "d", row[2]] as Set<String?> {
                let key = table.handle.bits(
                    org: frozen(row[0]), app: frozen(row[1]), env: frozen(row[2]), id: id.map(frozen))
                #expect(seen.insert([key.high, key.low]).inserted, "\(row) \(id ?? "-")")
                let again = table.handle.bits(
                    org: frozen(row[0]), app: frozen(row[1]), env: frozen(row[2]), id: id.map(frozen))
                #expect(key.high == again.high && key.low == again.low)
            }
        }
    }
}
