import Pipeline
import PipelineRouting
import Testing

/// `source` of a config, as the table has it for the data path.
@Suite("Sources of routes")
struct SourcePolicyTests {
    let state = RoutingState()

    private func spec(_ id: String, _ host: String, _ source: SourceSpec?) throws -> RouteSpec {
        var spec = RouteSpec(
            index: 0, id: id, org: "acme", app: "shop", env: "prod", hostname: host, port: 443, hint: .tlsPassthrough,
            backends: [BackendSpec(try #require(Endpoint("[fd00::1]:80")))])
        spec.source = source
        return spec
    }

    private func apply(_ specs: [RouteSpec]) {
        let (document, problems) = StateDocument.config(specs, groups: [], seed: testSeed)
        #expect(problems.isEmpty)
        #expect(state.apply(document).problems.isEmpty)
    }

    private func source(_ host: String) throws -> UnsafePointer<SourceAddresses>? {
        try #require(state.snapshot.named(host)).group.pointee.policy?.pointee.source
    }

    @Test("routes that say the same take turns together; a reload that says the same goes on with them")
    func shared() throws {
        let one = try SourceSpec.of([try ConfigValue.sourceRange("fd00::8/126")])
        let two = try SourceSpec.of([try ConfigValue.sourceRange("fd00::10")])
        apply([try spec("r1", "a.example.com", one), try spec("r2", "b.example.com", one)])
        let before = try #require(try source("a.example.com"))
        #expect(try source("b.example.com") == before && before.pointee.spec == one)
        apply([
            try spec("r1", "a.example.com", one), try spec("r2", "b.example.com", two),
            try spec("r3", "c.example.com", nil), try spec("r4", "d.example.com", .kernel),
            try spec("r5", "e.example.com", .client),
        ])
        #expect(try source("a.example.com") == before)
        #expect(try source("b.example.com")?.pointee.spec == two)
        #expect(try source("c.example.com") == nil)
        #expect(try source("d.example.com")?.pointee.isKernel == true)
        #expect(try source("e.example.com")?.pointee.isClient == true)
    }
}
