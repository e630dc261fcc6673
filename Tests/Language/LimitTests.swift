import FilterCatalog
import Pipeline
import PipelineLimits
import Testing

@testable import PipelineLanguage

@Suite("limit blocks") struct LimitTests {
    private func source(_ rate: String, name: String = "a") -> [UInt8] {
        Array(
            """
            limit \(name) {
                key    client/64
                rate   \(rate)
                table  1k
            }
            pipeline raw {
                rate_limit  \(name)
                backend     round_robin
            }
            listen [::]:5432  tcp_raw  via raw

            """.utf8)
    }
    private func table(_ program: Program?, _ name: String = "a") -> LimitTable? {
        program?.blocks.find(BlockKind("limit"), name) as? LimitTable
    }

    @Test("R26: a reload keeps the table of a limit whose settings are the same, and of no other")
    func reload() throws {
        let first = try #require(compile(source("5/s burst 5"), file: "x", catalog: catalog).program)
        let old = try #require(table(first))
        let same = compile(source("5/s"), file: "x", catalog: catalog, reusing: first.blocks).program
        #expect(table(same) === old)
        let changed = compile(source("6/s"), file: "x", catalog: catalog, reusing: first.blocks).program
        #expect(table(changed) != nil && table(changed) !== old)
        let renamed = compile(source("5/s", name: "b"), file: "x", catalog: catalog, reusing: first.blocks).program
        #expect(table(renamed, "b") != nil && table(renamed, "b") !== old)
        #expect(table(compile(source("5/s"), file: "x", catalog: catalog).program) !== old)
    }

    @Test("what is kept remembers who is over its limit, also when the program before is gone")
    func memory() throws {
        let key = LimitKeyBits(high: 1, low: 1)
        let now = Instant(nanoseconds: 1_000_000_000)
        var program = compile(source("1/s"), file: "x", catalog: catalog).program
        #expect(table(program)?.handle.admit(key, at: now).refusal == nil)
        for _ in 0..<3 {
            let blocks = try #require(program?.blocks)
            program = compile(source("1/s"), file: "x", catalog: catalog, reusing: blocks).program
        }
        #expect(table(program)?.handle.admit(key, at: now).refusal == .rateExceeded)
    }
}
