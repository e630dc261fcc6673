import FilterCatalog
import FilterEgressAccounting
import Pipeline
import PipelineLanguage
import Testing

/// The `hints` block: what it sets, and what holds without one. The wording of its errors is in `Golden/`.
@Suite struct HintsTests {
    private func compiled(_ hints: String, account: String = "account every 5s") -> Compilation {
        let text = """
            \(hints)
            pipeline out {
                anti_spoof  source assigned
                backend     original_destination
                \(account)
            }
            listen [::]:15001  transparent  via out

            """
        return compile(Array(text.utf8), file: "x", catalog: catalog)
    }

    @Test("without a block, the defaults hold where flows are recorded, and nothing is looked for elsewhere")
    func defaults() throws {
        #expect(try #require(compiled("").program).hints == HintSettings())
        #expect(try #require(compiled("", account: "account").program).hints == nil)
        #expect(try #require(compiled("hints { }").program).hints == HintSettings())
    }

    @Test("each line sets its own, and `off` switches it off") func settings() throws {
        let some = try #require(
            compiled("hints {\n fan_out 300 in 2m\n smtp off\n volume 20x over 2GiB in 10m\n repeat 1h\n}").program?
                .hints)
        #expect(some.fanOut == .init(300, in: .seconds(120)) && some.smtp == nil)
        #expect(some.portScan == HintSettings().portScan)
        #expect(some.volume == .init(factor: 20, floor: 2 << 30, in: .seconds(600)))
        #expect(some.repeatEvery == .seconds(3600))
        let off = compiled("hints {\n fan_out off\n smtp off\n port_scan off\n volume off\n}")
        #expect(try #require(off.program).hints == nil)
    }

    @Test("hints that nothing is recorded for get a note") func blind() {
        let notes = { (hints: String) in
            self.compiled(hints, account: "account").diagnostics.map(\.message).filter { $0.contains("see nothing") }
        }
        #expect(notes("hints { }").count == 1)
        #expect(notes("hints {\n fan_out off\n volume off\n}").isEmpty)
    }
}
