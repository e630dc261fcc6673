import CLinux
import Glibc
import Pipeline
import PipelineLastGood
import PipelineRouting
import PipelineState

// What a node does at its start with the state that it has kept, without the node: the store, the rules, the table. Each
// step with its time and memory, one JSON object a line.
//
//     names document COUNT LISTEN BACKEND   a document with so many names, at these ports; a tenth as many instances (the
//                                           first ten on [::1]) and a hundredth as many envs
//     names change NUMBER LISTEN BACKEND    a change of one of its routes
//     names keep DIRECTORY FILE             a store in DIRECTORY that has applied the document
//     names table DIRECTORY                 the same, and then writes a table for the next start (docs/adr/0116)
//     names start DIRECTORY                 opens it and goes on where it ended
//     names update DIRECTORY FILE           the same, and then the document or change: it is kept and applied

func fail(_ text: String) -> Never {
    _ = "names: \(text)\n".withCString { write(STDERR_FILENO, $0, strlen($0)) }
    exit(2)
}

func now(_ clock: clockid_t = CLOCK_MONOTONIC) -> Double {
    var time = timespec()
    clock_gettime(clock, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

func bytes(of path: String) -> [UInt8] {
    let file = open(path, O_RDONLY)
    guard file >= 0 else { fail("\(path): error \(errno)") }
    defer { close(file) }
    var status = stat()
    fstat(file, &status)
    var bytes = [UInt8](repeating: 0, count: max(Int(status.st_size), 1 << 16))
    var count = 0
    while count < bytes.count {
        let got = bytes.withUnsafeMutableBytes { read(file, $0.baseAddress.map { $0 + count }, $0.count - count) }
        guard got > 0 else { break }
        count += got
    }
    bytes.removeLast(bytes.count - count)
    return bytes
}

/// In MB, of `/proc/self/status`.
func memory(_ name: String) -> Double {
    let text = String(decoding: bytes(of: "/proc/self/status"), as: UTF8.self)
    guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix(name + ":") }),
        let value = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap({ Double($0) })
    else { return 0 }
    return value / 1000
}

/// From here on VmHWM is the peak since now.
func forgetPeak() {
    let file = open("/proc/self/clear_refs", O_WRONLY)
    _ = "5".withCString { write(file, $0, 1) }
    close(file)
}

func step<Result>(_ name: String, _ body: () throws -> Result) -> Result {
    forgetPeak()
    let (begin, used) = (now(), now(CLOCK_PROCESS_CPUTIME_ID))
    do {
        let result = try body()
        let (wall, cpu) = ((now() - begin) * 1000, (now(CLOCK_PROCESS_CPUTIME_ID) - used) * 1000)
        cl_trim_heap()
        let figures = [
            ("ms", wall), ("cpu_ms", cpu), ("anon_mb", memory("RssAnon")), ("file_mb", memory("RssFile")),
            ("peak_mb", memory("VmHWM")),
        ].map { "\"\($0.0)\":\(($0.1 * 100).rounded() / 100)" }
        print("{\"step\":\"\(name)\",\(figures.joined(separator: ","))}")
        fflush(nil)
        return result
    } catch { fail("\(name): \(error)") }
}

func digits(_ number: Int, _ count: Int) -> String {
    let text = String(number)
    return String(repeating: "0", count: max(0, count - text.count)) + text
}

struct Ports {
    let listen: Int
    let backend: Int
    init?(_ words: some Sequence<String>) {
        let numbers = words.compactMap { Int($0) }
        guard numbers.count == 2 else { return nil }
        (listen, backend) = (numbers[0], numbers[1])
    }
}

func route(_ number: Int, _ ports: Ports) -> String {
    let env = number / 100
    return "{\"route_id\":\"rt_\(digits(number, 8))\",\"env_id\":\"env_\(digits(env, 6))\","
        + "\"hostname\":\"app-\(digits(number, 7)).customer-\(digits(env, 5)).example.com\","
        + "\"listen_port\":\(ports.listen),\"protocol_hint\":\"tls_passthrough\",\"backend_process_type\":\"web\","
        + "\"backend_port\":\(ports.backend)}"
}

func instance(_ number: Int) -> String {
    let (high, low) = (String(number / 60000 + 1, radix: 16), String(number % 60000 + 1, radix: 16))
    return "{\"instance_id\":\"in_\(digits(number, 7))\",\"env_id\":\"env_\(digits(number / 10, 6))\","
        + "\"process_type\":\"web\",\"overlay_ipv6\":\"\(number < 10 ? "::1" : "fd00::\(high):\(low)")\","
        + "\"node_id\":\"host-\(number % 500)\",\"status\":\"ready\"}"
}

func env(_ number: Int) -> String {
    "{\"env_id\":\"env_\(digits(number, 6))\",\"app_id\":\"app_\(digits(number / 2, 6))\","
        + "\"org_id\":\"org_\(digits(number / 8, 6))\"}"
}

func writeDocument(_ names: Int, _ ports: Ports) {
    func list(_ name: String, _ count: Int, _ end: String, _ object: (Int) -> String) {
        print("\"\(name)\":[", terminator: "")
        for number in 0..<count { print(number > 0 ? ",\n" : "\n", object(number), separator: "", terminator: "") }
        print("]\(end)")
    }
    print("{\"format\":\"pipelined.state/1\",")
    list("envs", names / 100, ",", env)
    list("instances", names / 10, ",", instance)
    list("routes", names, "}") { route($0, ports) }
}

/// Kept as long as the process.
func update(_ bytes: [UInt8]) throws -> StateUpdate {
    let kept = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: bytes.count)
    _ = kept.initialize(from: bytes)
    let (update, problems) = StateUpdate.read(UnsafeBufferPointer(kept), as: .either)
    guard let update else { fail("\(problems.list)") }
    return update
}

func take(_ update: StateUpdate, _ kept: LastGood, _ routing: RoutingState) {
    let prepared = step("compare") { try kept.prepare(update, from: "push", now: 1) }
    step("keep") { try kept.keep(prepared) }
    let report = step("apply") { kept.apply(prepared, to: routing) }
    guard report.problems.list.isEmpty else { fail("\(report.problems.list.prefix(3))") }
}

func begin(_ directory: String) -> (LastGood, RoutingState) {
    let kept = step("open") { try LastGood.open(directory).state }
    kept.useTables()
    let routing = RoutingState(seed: kept.seed)
    _ = step("restore") { kept.restore(routing) }
    for notice in kept.takeNotices() { print("{\"notice\":\"\(notice.event)\"}") }
    print("{\"step\":\"ready\",\"routes\":\(routing.snapshot.routeCount),\"mapped\":\(routing.mappedRoutes)}")
    return (kept, routing)
}

let words = CommandLine.arguments
switch (words.count > 1 ? words[1] : "", words.count) {
case ("document", 5):
    guard let count = Int(words[2]), let ports = Ports(words[3...]) else { fail("document COUNT LISTEN BACKEND") }
    writeDocument(count, ports)
case ("change", 5):
    guard let number = Int(words[2]), let ports = Ports(words[3...]) else { fail("change NUMBER LISTEN BACKEND") }
    print("{\"format\":\"pipelined.change/1\",\"put\":{\"routes\":[\(route(number, ports))]}}")
case ("keep", 4):
    let kept = try LastGood.open(words[2]).state
    let routing = RoutingState(seed: kept.seed)
    take(try update(bytes(of: words[3])), kept, routing)
case ("table", 3):
    let (kept, routing) = begin(words[2])
    step("table") {
        _ = kept.tidy(routing)
        while kept.isTidying, !kept.wantsTidying { usleep(1000) }
        _ = kept.tidy(routing)
    }
case ("start", 3):
    _ = begin(words[2])
case ("update", 4):
    let (kept, routing) = begin(words[2])
    take(step("read") { try update(bytes(of: words[3])) }, kept, routing)
default:
    fail("document COUNT LISTEN BACKEND | change NUMBER LISTEN BACKEND | keep | update DIR FILE | table | start DIR")
}
