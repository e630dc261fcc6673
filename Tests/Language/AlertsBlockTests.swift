import FilterCatalog
import FilterEgressAccounting
import Pipeline
import PipelineLanguage
import Testing

/// The `alerts` block: what it sets, and what holds without one. The wording of its errors is in `Golden/`.
@Suite struct AlertsBlockTests {
    private func compiled(_ alerts: String, account: String = "account every 5s") -> Compilation {
        let text = """
            \(alerts)
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
        #expect(try #require(compiled("").program).alerts == AlertSettings())
        #expect(try #require(compiled("", account: "account").program).alerts == nil)
        #expect(try #require(compiled("alerts { }").program).alerts == AlertSettings())
    }

    @Test("each line sets its own, and `off` switches it off") func settings() throws {
        let some = try #require(
            compiled("alerts {\n fan_out 300 in 2m\n smtp off\n volume 20x over 2GiB in 10m\n repeat 1h\n}").program?
                .alerts)
        #expect(some.fanOut == .init(300, in: .seconds(120)) && some.smtp == nil)
        #expect(some.portScan == AlertSettings().portScan)
        #expect(some.volume == .init(factor: 20, floor: 2 << 30, in: .seconds(600)))
        #expect(some.repeatEvery == .seconds(3600))
        let off = compiled("alerts {\n fan_out off\n smtp off\n port_scan off\n volume off\n}")
        #expect(try #require(off.program).alerts == nil)
    }

    @Test("alerts that nothing is recorded for get a note") func blind() {
        let notes = { (alerts: String) in
            self.compiled(alerts, account: "account").diagnostics.map(\.message).filter { $0.contains("see nothing") }
        }
        #expect(notes("alerts { }").count == 1)
        #expect(notes("alerts {\n fan_out off\n volume off\n}").isEmpty)
    }
}
