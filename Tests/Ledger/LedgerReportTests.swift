import Foundation
import Pipeline
import PipelineFlows
import Testing

@testable import PipelineLedger

@Suite("Ledger: times, ranges and reports")
struct LedgerReportTests {
    @Test("times are read as they are written, and nothing else is")
    func times() {
        for time: Int64 in [0, 1, 951_782_400, 1_709_164_800, noon, 4_102_444_799] {
            #expect(LedgerTime.parse(LedgerTime.text(time), now: 0) == time)
        }
        #expect(LedgerTime.text(1_709_164_800) == "2024-02-29T00:00:00Z")
        #expect(LedgerTime.parse("2024-02-29", now: 0) == 1_709_164_800)
        #expect(LedgerTime.parse("2024-02-29 01:02", now: 0) == 1_709_168_520)
        #expect(LedgerTime.parse("24h", now: 100_000) == 13_600)
        for wrong in [
            "", "Z", "2023-02-29", "2024-13-01", "2024-02-29T24:00", "2024-2-9", "h", "-1h", "999999d", "2024-02-29T",
        ] {
            #expect(LedgerTime.parse(wrong, now: 0) == nil, "\(wrong)")
        }
    }

    @Test("a range's parts lie one after the other, cover it, and are whole buckets", arguments: 0..<300)
    func ranges(seed: Int) {
        let now = noon + 100 * 86400
        let from = now - Int64(Hashing.mix(UInt64(seed)) % (40 * 86400)) - 60
        let to = from + 1 + Int64(Hashing.mix(UInt64(seed) + 1000) % UInt64(now - from))
        let range = LedgerRange(from: from, to: to, now: now) { level in
            [.minutes: now - 2 * 86400, .hours: now - 30 * 86400, .days: now - 400 * 86400][level]
        }
        #expect(range.start <= from && range.end >= to)
        var next = range.start
        for part in range.parts {
            #expect(part.start == next && part.start < part.end)
            #expect(part.start == part.level.start(of: part.start) && part.end == part.level.start(of: part.end))
            // What a level does not have any more is not asked of it.
            if part.level == .minutes { #expect(part.start >= now - 2 * 86400 - 60) }
            if part.level == .hours { #expect(part.start >= now - 30 * 86400 - 3600) }
            next = part.end
        }
        #expect(next == range.end)
    }

    private func filled(_ scratch: Scratch) throws -> LedgerReader {
        let store = try LedgerStore(scratch.ledger) { _ in }
        var sequence: UInt64 = 0
        for step in 0..<300 as Range<Int64> {
            sequence += 1
            let next = record(
                sequence, source: UInt32(step % 5), destination: UInt32(step % 7), bytes: UInt64(step),
                at: noon - 86400 + step * 500)
            #expect(store.write([next], identity: fakeIdentity, now: noon + 65000))
        }
        return try LedgerReader(scratch.ledger.path)
    }

    @Test("a report's sums are those of the records in its range, however it is grouped")
    func sums() throws {
        let scratch = try Scratch()
        let reader = try filled(scratch)
        let ranges: [(Int64, Int64)] = [
            (noon - 86400, noon + 70000), (noon - 50000, noon + 100), (noon - 43200, noon + 43200), (noon, noon + 60),
            (noon + 1, noon + 7201),
        ]
        for (from, to) in ranges {
            let (start, end) = (LedgerLevel.minutes.start(of: from), LedgerLevel.minutes.ceiling(to))
            let expected = (0..<300 as Range<Int64>).filter {
                let minute = LedgerLevel.minutes.start(of: noon - 86400 + $0 * 500)
                return minute >= start && minute < end
            }
            for group in ReportGroup.allCases {
                let report = try reader.report(by: group, from: from, to: to, now: noon + 70000, top: 1000)
                #expect(report.total.bytesOut == expected.reduce(0, +), "\(group)")
                #expect(report.total.connections == Int64(expected.count))
                #expect(report.rows.reduce(0) { $0 + $1.sums.bytesOut } == report.total.bytesOut)
            }
        }
        let byOrg = try reader.report(by: .org, from: noon - 86400, to: noon + 70000, now: noon + 70000, top: 1)
        #expect(byOrg.names == ["org0"])
        #expect(byOrg.others == 1)
        let ports = try reader.report(by: .port, from: noon - 86400, to: noon + 70000, now: noon + 70000, top: 9)
        #expect(ports.names == ["443/tcp"])
    }

    @Test("a series has the same volume as the report, by any dimension")
    func series() throws {
        let scratch = try Scratch()
        let reader = try filled(scratch)
        for group in ReportGroup.allCases {
            let question = ReportQuestion(by: [group], from: noon - 86400, to: noon + 70000, now: noon + 70000)
            let series = try reader.series(question, top: 2)
            #expect(series.step == 3600)
            let groups = [.org: 2, .env: 3, .instance: 3, .destination: 3][group] ?? series.lines.count
            #expect(series.lines.count == groups && (series.lines.last?.row == nil) == (groups == 3))
            let volume = series.lines.reduce(ReportSeries.Volume()) { $0 + $1.total }
            let all = (0..<300 as Range<Int64>).reduce(0, +)
            #expect(volume == ReportSeries.Volume(out: all, into: 2 * all), "\(group)")
        }
    }

    @Test("R21: what is called the same in several envs is several rows and several areas: by env as by instance")
    func wholePaths() throws {
        let scratch = try Scratch()
        let store = try LedgerStore(scratch.ledger) { _ in }
        let owners = [("acme", "shop"), ("globex", "web"), ("acme", "web")]
        let records = (0..<3 as Range<UInt32>).map { record(UInt64($0) + 1, source: $0, bytes: 1000 - UInt64($0)) }
        #expect(
            store.write(
                records,
                identity: { _, source in
                    let owner = owners[Int(source.v4Bits)]
                    return FlowNames(instance: "i", env: "prod", app: owner.1, org: owner.0)
                }, now: noon))
        let reader = try LedgerReader(scratch.ledger.path)
        for group in [ReportGroup.env, .instance] {
            let rows = try reader.report(by: group, from: noon, to: noon + 60, now: noon + 60, top: 9).rows
            #expect(
                rows.map { "\($0.owner.org)/\($0.owner.app)/\($0.owner.env)" } == [
                    "acme/shop/prod", "globex/web/prod", "acme/web/prod",
                ])
            #expect(rows.map(\.sums.bytesOut) == [1000, 999, 998], "\(group)")
        }
        let orgs = try reader.report(by: .org, from: noon, to: noon + 60, now: noon + 60, top: 9)
        #expect(
            orgs.names == ["acme", "globex"] && orgs.rows.allSatisfy { $0.owner.app.isEmpty && $0.owner.env.isEmpty })
        let series = try reader.series(ReportQuestion(by: [.env], from: noon, to: noon + 60, now: noon + 60))
        #expect(
            series.lines.map { $0.row?.owner.owner.path } == ["acme/shop/prod", "globex/web/prod", "acme/web/prod"])
    }

    @Test("a ledger that isn't there is said to be missing, and not made")
    func missing() throws {
        let scratch = try Scratch()
        #expect(throws: LedgerProblem.self) { try LedgerReader(scratch.ledger.path) }
        #expect(!FileManager.default.fileExists(atPath: scratch.ledger.path))
    }

    @Test("destinations of both families, in many buckets and of many instances, come once each", arguments: 0..<20)
    func destinations(seed: UInt64) throws {
        let scratch = try Scratch()
        let store = try LedgerStore(scratch.ledger) { _ in }
        var expected: [IPAddress: Int64] = [:]
        var records: [FlowRecord] = []
        for number in 0..<400 as Range<UInt64> {
            let random = Hashing.mix(seed << 32 | number)
            // Few, and some whose bytes begin alike: 1.2.3.4 and 0102:0304::.
            let low = random >> 8 & 3
            let v4 = IPAddress(v4: 0x0102_0300 | UInt32(low))
            let v6 = IPAddress(high: (0x0102_0300 | low) << 32, low: random >> 16 & 1)
            let bytes = random >> 40 & 0xFFF
            var next = record(
                number + 1, source: UInt32(random >> 20 & 7), bytes: bytes,
                at: noon - Int64(random >> 24 & 0xFFFF))
            next.key.destination = random & 1 == 0 ? v4 : v6
            expected[next.key.destination, default: 0] += Int64(bytes)
            records.append(next)
        }
        #expect(store.write(records, identity: fakeIdentity, now: noon))
        let reader = try LedgerReader(scratch.ledger.path)
        for (from, to) in [(noon - 86400, noon + 60), (noon - 65536, noon + 60)] {
            let report = try reader.report(by: .destination, from: from, to: to, now: noon + 86400, top: 1000)
            #expect(report.rows.count == expected.count && report.others == 0)
            for row in report.rows {
                let address = try #require(row.destination)
                #expect(row.sums.bytesOut == expected[address], "\(row)")
            }
            #expect(report.rows.map(\.sums.bytes) == report.rows.map(\.sums.bytes).sorted(by: >))
        }
    }

    @Test("where rows are missing, a range is widened to the level that has them")
    func gaps() {
        let (now, at) = (noon + 40 * 86400, noon + 90)
        func range(_ from: Int64, _ level: LedgerLevel, _ start: Int64, _ stop: Int64) -> LedgerRange {
            LedgerRange(
                from: from, to: now, now: now, oldest: { _ in .min },
                isWhole: { $0 != level || $2 <= start || $1 >= stop })
        }
        #expect(range(at, .minutes, at, at + 60).start == noon)
        #expect(range(at + 3600, .minutes, at, at + 60).start == noon + 3660)
        #expect(range(at + 3600, .hours, noon, noon + 3600).start == noon - 43200)
        #expect(range(at + 86400, .hours, noon, noon + 3600).start == noon + 86460)
    }

    /// `LEDGER_SCALE=1000000 scripts/test --filter scale` prints figures. With a release build of the tests they are
    /// those of docs/OPERATING.md.
    @Test(
        "a day of many keys is whole, and every report says the same of it",
        .enabled(if: ProcessInfo.processInfo.environment["LEDGER_SCALE"] != nil))
    func scale() throws {
        let keys = Int(ProcessInfo.processInfo.environment["LEDGER_SCALE"] ?? "") ?? 1000
        // How many of the keys are of one destination: 1 is the most rows that a report by destination can have.
        let shared = UInt32(ProcessInfo.processInfo.environment["LEDGER_SHARED"] ?? "") ?? 1
        let kept = ProcessInfo.processInfo.environment["LEDGER_KEEP"]
        let scratch = try Scratch()
        var settings = scratch.ledger
        if let kept { settings.path = kept }
        let store = try LedgerStore(settings) { print($0) }
        let midnight = noon - 43200
        let clock = ContinuousClock()
        var sequence: UInt64 = 0
        let writing = clock.measure {
            for start in stride(from: 0, to: keys, by: 5000) {
                let at = midnight + Int64(start) * 86000 / Int64(keys)
                let batch = (start..<min(keys, start + 5000)).map { key in
                    sequence += 1
                    return record(
                        sequence, source: UInt32(key % 500), destination: UInt32(key) / shared,
                        bytes: 1000 + UInt64(key), at: at)
                }
                #expect(store.write(batch, identity: fakeIdentity, now: at))
            }
        }
        let folder = (settings.path as NSString).deletingLastPathComponent
        let size = try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasPrefix("ledger") }.map {
            "\($0) \(try FileManager.default.attributesOfItem(atPath: folder + "/" + $0)[.size] ?? 0)"
        }
        print("\(keys) keys written in \(writing), \(size)")
        let reader = try LedgerReader(settings.path)
        for (name, from, to) in [("day", midnight, midnight + 86400), ("24h", noon - 86400 + 40000, noon + 40000)] {
            var totals: [ReportSums] = []
            for group in ReportGroup.allCases {
                let took = try clock.measure {
                    let report = try reader.report(by: group, from: from, to: to, now: noon + 50000, top: 20)
                    totals.append(report.total)
                    #expect(report.rows.count + report.others <= keys)
                    if group == .destination {
                        #expect(report.rows.count + report.others == (keys + Int(shared) - 1) / Int(shared))
                        #expect(report.names[0] == "\(IPAddress(v4: UInt32(keys - 1) / shared))")
                    }
                }
                print("\(name) by \(group): \(took)")
            }
            let count = Int64(keys)
            #expect(totals.allSatisfy { $0 == totals[0] })
            #expect(totals[0].connections == count)
            #expect(totals[0].bytesOut == count * 1000 + count * (count - 1) / 2)
        }
        var series: ReportSeries?
        let took = try clock.measure {
            series = try reader.series(
                ReportQuestion(by: [.env], from: midnight, to: noon + 43200, now: noon + 50000))
        }
        print("series: \(took)")
        let volume = try #require(series).lines.reduce(Int64(0)) { $0 + $1.total.out }
        #expect(volume == (Int64(keys) * 1000 + Int64(keys) * (Int64(keys) - 1) / 2))
    }
}
