import Pipeline
import PipelineSets
import Testing

@Suite("NameSet") struct NameSetTests {
    private func set(_ names: [String]) -> NameSet {
        var entries = NameEntries()
        for name in names {
            var copy = name
            #expect(copy.withUTF8 { entries.add($0) }, "\(name)")
        }
        return NameSet(name: "x", entries: entries, seed: HashSeed(1, 2))
    }

    private func match(_ set: NameSet, _ name: String) -> String? {
        var copy = name
        return copy.withUTF8 { set.table.match($0) }.map { set.table.text($0) }
    }

    @Test("R3: a name is itself, `*.` is one label, a dot is the name and all under it") func kinds() {
        let set = set(["Exact.Example.", "*.wild.example", ".suffix.example", "sub.wild.example"])
        #expect(match(set, "exact.example") == "exact.example")
        #expect(match(set, "a.exact.example") == nil)
        #expect(match(set, "wild.example") == nil)
        #expect(match(set, "a.wild.example") == "*.wild.example")
        #expect(match(set, "sub.wild.example") == "sub.wild.example")
        #expect(match(set, "a.b.wild.example") == nil)
        #expect(match(set, "suffix.example") == ".suffix.example")
        #expect(match(set, "a.b.c.suffix.example") == ".suffix.example")
        #expect(match(set, "xsuffix.example") == nil)
        #expect(match(set, "example") == nil)
    }

    @Test("one name may be of several kinds") func together() {
        let set = set(["a.example", ".a.example", "*.b.example", "b.example", ".c.example", ".example.c.example"])
        #expect(set.table.count == 4)
        #expect(match(set, "a.example") == "a.example")
        #expect(match(set, "x.a.example") == ".a.example")
        #expect(match(set, "x.b.example") == "*.b.example")
        #expect(match(set, "x.y.example.c.example") == ".example.c.example")
    }

    @Test(
        "R3: what is no hostname is no entry",
        arguments: [
            "", ".", "*.", "*", "a.*.example", "*example.com", "192.0.2.1", "a b", "b\u{FC}cher.example", "a..b",
            "*.*.a.b", "..a.b",
        ]) func refused(_ name: String)
    {
        var entries = NameEntries()
        var copy = name
        #expect(!copy.withUTF8 { entries.add($0) })
        #expect(entries.count == 0)
    }

    @Test("the empty set matches nothing, and any set says what the obvious way says") func property() {
        #expect(match(set([]), "a.example") == nil)
        var random = SystemRandomNumberGenerator()
        let labels = ["a", "b", "c"]
        func name() -> String {
            (0..<Int.random(in: 1...5, using: &random)).compactMap { _ in labels.randomElement() }.joined(
                separator: ".")
        }
        for _ in 0..<200 {
            let names = (0..<Int.random(in: 1...20)).map { _ in
                ["", "*.", "."].randomElement().unsafelyUnwrapped + name()
            }
            let set = set(names)
            for _ in 0..<50 {
                let probe = name()
                let wanted = names.contains { entry in
                    if entry.hasPrefix("*.") {
                        return probe.split(separator: ".").dropFirst().joined(separator: ".") == entry.dropFirst(2)
                    }
                    return entry.hasPrefix(".") ? ".\(probe)".hasSuffix(entry) : probe == entry
                }
                #expect((match(set, probe) != nil) == wanted, "\(names) \(probe)")
            }
        }
    }
}
