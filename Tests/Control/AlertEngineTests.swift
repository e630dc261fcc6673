import FilterEgressAccounting
import Pipeline
import PipelineFlows
import PipelineLedger
import PipelineText
import Testing

@testable import PipelineAlerts
@testable import PipelineText

/// One engine, its time, and short ways to tell it things.
private final class Bench {
    let engine: AlertEngine
    var now: Instant

    /// Windows of 10 s; what a test is not about is off.
    init(
        _ change: (inout AlertSettings) -> Void, instanceLimit: Int = AlertEngine.instanceLimit,
        targetLimit: Int = AlertEngine.targetLimit
    ) {
        now = Instant(nanoseconds: 1_000_000_000_000)
        engine = AlertEngine(
            Bench.settings(change), now: now, seed: HashSeed(1, 2), instanceLimit: instanceLimit,
            targetLimit: targetLimit)
    }

    static func settings(_ change: (inout AlertSettings) -> Void) -> AlertSettings {
        var settings = AlertSettings()
        (settings.fanOut, settings.smtp, settings.portScan, settings.volume) = (nil, nil, nil, nil)
        settings.repeatEvery = .seconds(60)
        change(&settings)
        return settings
    }

    static func address(_ number: UInt64) -> IPAddress { IPAddress(high: 0x2001_0db8_0000_0000, low: number) }
    static let source = IPAddress(high: 0xFD << 56, low: 7)

    func wait(_ seconds: UInt32) { now = now + .seconds(seconds) }

    func flow(
        _ instance: UInt32, _ destination: UInt64, port: UInt16 = 443, connections: UInt32 = 1, out: UInt64 = 0,
        into: UInt64 = 0, proto: UInt8 = 6
    ) {
        let key = FlowKey(
            instance: instance, source: Bench.source, destination: Bench.address(destination), port: port, proto: proto)
        engine.observe(
            FlowRecord(
                key: key, connections: connections, bytesOut: out, bytesIn: into, firstSeen: 0, lastSeen: 0, origin: 0,
                sequence: 0), now)
    }

    func refused(_ instance: UInt32, _ destination: UInt64, port: UInt16 = 443, isAccounted: Bool = false) {
        engine.observe(
            Attempt(
                instance: instance, source: Bench.source, destination: Endpoint(Bench.address(destination), port),
                isRefused: true, isAccounted: isAccounted), now)
    }

    /// Second by second, what is said.
    func alerts(for seconds: Int) -> [Alert] {
        (0..<seconds).flatMap { _ in
            wait(1)
            return engine.tick(now)
        }
    }
    func tick() -> [Alert] { engine.tick(now) }
}

@Suite("Alerts")
struct AlertEngineTests {
    private static let ten = AlertSettings.Threshold(10, in: .seconds(10))

    @Test("fan_out: more new destinations than the threshold, not as many; known ones don't count")
    func fanOut() throws {
        let bench = Bench { $0.fanOut = AlertEngineTests.ten }
        bench.wait(10)
        for number in 1...10 as ClosedRange<UInt64> { bench.flow(1, number) }
        #expect(bench.tick().isEmpty)
        for number in 1...10 as ClosedRange<UInt64> { bench.flow(1, number, port: 80) }
        #expect(bench.tick().isEmpty)
        bench.flow(1, 11, port: 8443)
        let alert = try #require(bench.tick().first)
        #expect(
            alert.kind == .fanOut && alert.status == .started && alert.instance == 1 && alert.source == Bench.source)
        #expect(alert.figures.value == 11 && alert.figures.bound == 10 && alert.peak == 11)
        #expect(alert.figures.example == Endpoint(Bench.address(11), 8443))
        #expect(bench.tick().isEmpty)
    }

    @Test("fan_out: who is asked by many goes nowhere: what conntrack counts of flows that others began is none")
    func asked() {
        let bench = Bench { $0.fanOut = AlertEngineTests.ten }
        bench.wait(10)
        for number in 1...100 as ClosedRange<UInt64> { bench.flow(1, number, connections: 0, out: 500, proto: 17) }
        #expect(bench.tick().isEmpty)
        for number in 1...11 as ClosedRange<UInt64> { bench.flow(1, number, proto: 17) }
        #expect(bench.tick().map(\.kind) == [.fanOut])
    }

    @Test("fan_out: what comes within a window of the start is learned, and is no alert; it is known afterwards")
    func learns() {
        let bench = Bench { $0.fanOut = AlertEngineTests.ten }
        for number in 1...500 as ClosedRange<UInt64> { bench.flow(1, number) }
        #expect(bench.alerts(for: 9).isEmpty)
        bench.wait(1)
        for number in 1...500 as ClosedRange<UInt64> { bench.flow(1, number) }
        #expect(bench.tick().isEmpty)
        for number in 501...520 as ClosedRange<UInt64> { bench.flow(1, number) }
        #expect(bench.tick().map(\.kind) == [.fanOut])
    }

    @Test(
        "fan_out: a burst on both sides of a tenth's edge counts together; one spread over more than a window doesn't")
    func window() {
        let bench = Bench { $0.fanOut = AlertEngineTests.ten }
        bench.wait(20)
        for number in 1...6 as ClosedRange<UInt64> { bench.flow(1, number) }
        bench.wait(9)
        for number in 7...12 as ClosedRange<UInt64> { bench.flow(1, number) }
        #expect(bench.tick().map(\.figures.value) == [12])
        bench.wait(10)
        for number in 13...18 as ClosedRange<UInt64> { bench.flow(2, number) }
        bench.wait(10)
        for number in 19...24 as ClosedRange<UInt64> { bench.flow(2, number) }
        #expect(bench.tick().allSatisfy { $0.instance == 1 })
    }

    @Test("an alert: once when it starts, again after `repeat`, once when it was below for a window; the peak is kept")
    func states() throws {
        let bench = Bench { $0.smtp = AlertEngineTests.ten }
        var said: [Alert] = []
        for second in 0..<100 {
            bench.flow(1, 1, port: 25, connections: second == 30 ? 50 : 2)
            said += bench.alerts(for: 1)
        }
        #expect(said.map(\.status) == [.started, .continues])
        #expect(said.last?.lasted == .seconds(60))
        let end = bench.alerts(for: 30)
        #expect(end.map(\.status) == [.ended])
        let last = try #require(end.first)
        #expect(last.peak == 66 && last.figures.value == 12 && last.figures.bound == 10)
        #expect(last.lasted >= .seconds(100) && last.lasted <= .seconds(120))
        #expect(bench.alerts(for: 100).isEmpty)
        #expect(bench.engine.begun == [.smtp: 1] && bench.engine.active(.smtp) == 0)
    }

    @Test("smtp: connections of flows and refused ones, each once; other ports and UDP are none")
    func smtp() throws {
        let bench = Bench { $0.smtp = AlertEngineTests.ten }
        bench.flow(1, 1, port: 25, connections: 4)
        bench.flow(1, 1, port: 25, connections: 0, out: 1000)
        bench.flow(1, 2, port: 465, connections: 3)
        bench.flow(1, 2, port: 26, connections: 100)
        bench.flow(1, 2, port: 25, connections: 100, proto: 17)
        // Of the four to port 25, as the log has it.
        bench.refused(1, 1, port: 25, isAccounted: true)
        for _ in 0..<3 { bench.refused(1, 3, port: 587) }
        #expect(bench.tick().isEmpty)
        bench.refused(1, 3, port: 587)
        let alert = try #require(bench.tick().first)
        #expect(alert.kind == .smtp && alert.figures.value == 11 && alert.figures.refused == 5)
        #expect(alert.figures.example?.port == 587)
    }

    @Test("port_scan: distinct destinations and ports that refused or were refused; one that is tried again is one")
    func portScan() throws {
        let bench = Bench { $0.portScan = AlertEngineTests.ten }
        for _ in 0..<100 { bench.refused(1, 1, port: 80) }
        for port in 1...9 as ClosedRange<UInt16> { bench.refused(1, 1, port: port, isAccounted: true) }
        bench.refused(2, 9, port: 1)
        #expect(bench.tick().isEmpty)
        bench.refused(1, 2, port: 80)
        let alert = try #require(bench.tick().first)
        #expect(
            alert.kind == .portScan && alert.instance == 1 && alert.figures.value == 11 && alert.figures.refused == 110)
        #expect(!alert.figures.isAtBound)
    }

    @Test("volume: more than the factor of what is usual, and than the floor, of an instance with a past")
    func volume() throws {
        let bench = Bench { $0.volume = AlertSettings.Volume(factor: 10, floor: 5000, in: .seconds(10)) }
        bench.flow(1, 1, out: 1_000_000)
        #expect(bench.alerts(for: 10).isEmpty)
        for _ in 0..<8 {
            bench.flow(1, 1, connections: 0, out: 60, into: 40)
            bench.flow(2, 1, connections: 0, out: 600, into: 400)
            #expect(bench.alerts(for: 10).isEmpty)
        }
        // Ten times the usual is below the floor for the one, and just the bound for the other.
        bench.flow(1, 1, connections: 0, out: 5000)
        bench.flow(2, 1, connections: 0, out: 10_000)
        #expect(bench.tick().isEmpty)
        bench.flow(1, 1, connections: 0, into: 1)
        bench.flow(2, 1, connections: 0, into: 1)
        let alerts = bench.tick()
        #expect(alerts.map(\.instance) == [1, 2])
        let alert = try #require(alerts.last)
        #expect(alert.kind == .volume && alert.figures.bytesOut == 10_000 && alert.figures.bytesIn == 1)
        #expect(alert.figures.usual == 1000 && alert.figures.bound == 10_000 && alert.figures.value == 10_001)
        let later = bench.alerts(for: 40)
        #expect(later.map(\.status) == [.ended, .ended])
    }

    @Test("volume: a flood that lasts is one alert, and ends when it has become usual")
    func flood() {
        let bench = Bench { $0.volume = AlertSettings.Volume(factor: 4, floor: 1000, in: .seconds(10)) }
        for _ in 0..<9 {
            bench.flow(1, 1, out: 1000)
            #expect(bench.alerts(for: 10).isEmpty)
        }
        var said: [Alert.Status] = []
        for _ in 0..<80 {
            bench.flow(1, 1, out: 20_000)
            said += bench.alerts(for: 10).map(\.status)
        }
        #expect(said.first == .started && said.last == .ended && said.count { $0 == .started } == 1)
        #expect(said.count { $0 == .continues } >= 3)
    }

    @Test("nobody's traffic is nobody's alert; what many flows were counted together as is no destination")
    func nobody() {
        let bench = Bench {
            $0.fanOut = AlertEngineTests.ten
            $0.smtp = AlertEngineTests.ten
            $0.portScan = AlertEngineTests.ten
        }
        bench.wait(10)
        for number in 1...100 as ClosedRange<UInt64> {
            bench.flow(.max, number, port: 25)
            bench.refused(.max, number, port: 25)
        }
        #expect(bench.tick().isEmpty && bench.engine.instances == 0)
        let folded = FlowKey(instance: 1, source: Bench.source, destination: .unspecified, port: 0, proto: 6)
        for number in 1...100 as ClosedRange<UInt64> {
            bench.engine.observe(
                FlowRecord(
                    key: folded, connections: 1, bytesOut: 1, bytesIn: 1, firstSeen: 0, lastSeen: 0, origin: 0,
                    sequence: number), bench.now)
        }
        #expect(bench.tick().isEmpty)
    }

    @Test("R27: more instances than there is place for: the newest are not watched, until others were idle for an hour")
    func instanceBound() {
        let bench = Bench({ $0.smtp = AlertEngineTests.ten }, instanceLimit: 2)
        bench.flow(1, 1)
        bench.flow(2, 1)
        bench.flow(3, 1, port: 25, connections: 100)
        #expect(bench.engine.instances == 2 && bench.engine.unwatched == 1)
        #expect(bench.tick().isEmpty)
        bench.wait(3599)
        bench.flow(2, 1)
        bench.flow(3, 1, port: 25, connections: 100)
        #expect(bench.engine.unwatched == 2)
        bench.wait(60)
        bench.flow(3, 1, port: 25, connections: 100)
        #expect(bench.tick().map(\.instance) == [3])
        #expect(bench.engine.instances == 2 && bench.engine.unwatched == 2)
    }

    @Test("R27: targets of all instances have a bound; figures say that there are more, and places come back")
    func targetBound() throws {
        let bench = Bench({ $0.portScan = AlertEngineTests.ten }, targetLimit: 20)
        for port in 1...15 as ClosedRange<UInt16> { bench.refused(1, 1, port: port) }
        for port in 1...15 as ClosedRange<UInt16> { bench.refused(2, 1, port: port) }
        let first = try #require(bench.tick().first)
        #expect(first.instance == 1 && first.figures.value == 15 && !first.figures.isAtBound)
        #expect(bench.alerts(for: 30).map(\.instance) == [1])
        for port in 1...25 as ClosedRange<UInt16> { bench.refused(2, 1, port: port) }
        let second = try #require(bench.tick().first)
        #expect(second.instance == 2 && second.figures.value == 20 && second.figures.isAtBound)
    }

    @Test("R27: of many alerts at once sixty are said, and the others a second each, also their ends")
    func rate() {
        let bench = Bench { $0.smtp = AlertEngineTests.ten }
        var said: [Alert] = []
        for second in 0..<40 {
            for instance in 0..<100 as Range<UInt32> { bench.flow(instance, 1, port: 25, connections: 2) }
            said += bench.alerts(for: 1)
            if said.count > 60 && second < 8 { #expect(said.count <= 60 + second) }
        }
        #expect(said.count < 100 && Set(said.map(\.instance)).count == said.count)
        #expect(bench.engine.begun[.smtp] == 100)
        let rest = bench.alerts(for: 200)
        #expect(rest.count { $0.status == .ended } == (said + rest).count { $0.status == .started })
        #expect(bench.engine.active(.smtp) == 0)
    }

    @Test("a reload: what is switched off ends at once, what changed counts anew, what was known stays known")
    func reload() {
        let bench = Bench {
            $0.smtp = AlertEngineTests.ten
            $0.fanOut = AlertEngineTests.ten
        }
        for number in 1...100 as ClosedRange<UInt64> { bench.flow(1, number, port: 25) }
        #expect(bench.tick().map(\.status) == [.started])
        bench.engine.update(Bench.settings { $0.fanOut = AlertSettings.Threshold(5, in: .seconds(10)) })
        #expect(bench.tick().map(\.status) == [.ended])
        bench.wait(10)
        for number in 1...100 as ClosedRange<UInt64> { bench.flow(1, number, port: 25) }
        #expect(bench.tick().isEmpty)
        for number in 101...106 as ClosedRange<UInt64> { bench.flow(1, number) }
        #expect(bench.tick().map(\.figures.value) == [6])
    }

    @Test("which ends are attempts: refusals of stages and destinations, and what no stage recorded")
    func attempts() {
        var record = ConnectionRecord()
        record.instanceNumber = 4
        record.peer = Endpoint(Bench.source, 9)
        record.destination = Endpoint(Bench.address(1), 25)
        let attempt = { (reason: ReasonCode, isAccounted: Bool) -> Attempt? in
            record.reason = reason
            record.isAccounted = isAccounted
            return Attempt(record)
        }
        #expect(attempt(RuntimeReason.connectRefused.code, true)?.isRefused == true)
        #expect(attempt(ReasonCode(rawValue: 64), false)?.isRefused == true)
        #expect(attempt(RuntimeReason.closedByClient.code, false)?.isRefused == false)
        #expect(attempt(RuntimeReason.closedByClient.code, true) == nil)
        #expect(attempt(RuntimeReason.tooManyConnections.code, false)?.isRefused == false)
        record.instanceNumber = InstanceIdentity.unknown
        #expect(attempt(RuntimeReason.connectRefused.code, true) == nil)
    }
}

@Suite("What alerts say")
struct AlertTextTests {
    private func line(
        _ kind: Alert.Kind, _ status: Alert.Status = .started, instance: String = "i_7",
        socket: String? = "/run/p.sock",
        isAtBound: Bool = false
    ) -> String {
        let figures = Alert.Figures(
            value: 3 << 30, bound: 200, window: .seconds(60), isAtBound: isAtBound, refused: 5, bytesOut: 2, bytesIn: 1,
            usual: 2048, example: Endpoint(IPAddress(v4: 0xC000_0209), 25))
        let alert = Alert(
            kind: kind, status: status, instance: 7, source: IPAddress(high: 0xFD << 56, low: 7), figures: figures,
            peak: 9, lasted: .seconds(61))
        let names = FlowNames(instance: instance, env: "env_a", app: "shop", org: "acme")
        let text = AlertText(
            alert: alert, names: names, adminSocket: socket,
            addresses: [IPAddress(high: 0xFD << 56, low: 7), IPAddress(v4: 0x0A00_0007)])
        var line = JSONLine()
        line.open()
        line.field("message", text.message)
        text.write(&line)
        line.close()
        return line.string
    }

    @Test("a line has who, what, how much, and what to run") func started() {
        #expect(
            line(.smtp, isAtBound: true)
                == "{\"message\":\"instance i_7 of acme/shop/env_a makes many connections to mail ports: at least 3221225472 within 1m 0s\","
                + "\"kind\":\"smtp\",\"status\":\"started\",\"instance\":\"i_7\",\"env\":\"env_a\",\"app\":\"shop\","
                + "\"org\":\"acme\",\"source\":\"fd00::7\",\"addresses\":[\"fd00::7\",\"10.0.0.7\"],\"connections\":3221225472,\"refused\":5,\"threshold\":200,"
                + "\"window_s\":60,\"at_least\":true,\"example\":\"192.0.2.9:25\",\"investigate\":\"pipelined top --admin "
                + "/run/p.sock --by destination --env acme/shop/env_a --instance i_7 --port 25 --sort connections\"}")
        #expect(line(.fanOut).contains("\"new_destinations\":3221225472,\"threshold\":200,"))
        #expect(line(.portScan).contains("\"targets\":3221225472,\"refused\":5,"))
        #expect(line(.volume).contains("\"bytes_out\":2,\"bytes_in\":1,\"baseline_bytes\":2048,"))
        #expect(line(.volume).contains("3.0 GiB within 1m 0s, usually 2.0 KiB"))
    }

    @Test("the end has how long it took and how far it went") func ended() {
        let text = line(.fanOut, .ended)
        #expect(text.contains("connecting to many new destinations is over, after 1m 1s"))
        #expect(text.contains("\"peak\":9") && text.contains("\"lasted_s\":61"))
        #expect(line(.fanOut, .continues).contains("instance i_7 of acme/shop/env_a still connects to many"))
    }

    @Test("what to run survives a name that a shell would take for more; without an admin socket it is the log")
    func look() {
        #expect(AlertText.shellWord("i;rm'x") == "'i;rm'\\''x'")
        #expect(AlertText.shellWord("") == "''")
        #expect(AlertText.shellWord("env_a-1.b:c") == "env_a-1.b:c")
        #expect(line(.volume, instance: "$(x)").contains("--instance '$(x)'"))
        #expect(line(.volume, socket: nil).contains("journalctl"))
        #expect(
            line(.portScan).contains(
                "jq -c --arg o acme --arg a shop --arg e env_a --arg i i_7 'select(.event == \\\"connection\\\" and "
                    + "[.org, .app, .env, .instance] == [$o, $a, $e, $i]) | {destination, reason}'"))
        let long = String(repeating: "i", count: 49)
        #expect(line(.portScan, instance: long).contains("--arg i '\(long.dropLast())…'"), "as the log cuts it")
        #expect(!line(.volume, socket: NodeSettings.usualAdminSocket).contains("--admin"))
    }
}
