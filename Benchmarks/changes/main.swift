import FilterCatalog
import Glibc
import Pipeline
import PipelineHealth
import PipelineLanguage
import PipelineRouting

// What one change costs a node that has a million routes: the time until its next table is there, and until the health checks
// follow it.
//
//     changes [ROUTES ENVS INSTANCES [CHANGES]]

func now() -> UInt64 {
    var t = timespec()
    clock_gettime(CLOCK_MONOTONIC, &t)
    return UInt64(t.tv_sec) * 1_000_000_000 + UInt64(t.tv_nsec)
}

/// Desired state in memory, as a node keeps it on disk.
final class Objects: DesiredObjects {
    private var texts: [StateKind: [[UInt8]: UnsafeMutableRawBufferPointer]] = [:]

    func set(_ kind: StateKind, _ id: String, _ text: String) {
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: text.utf8.count, alignment: 1)
        memory.copyBytes(from: text.utf8)
        texts[kind, default: [:]].updateValue(memory, forKey: Array(id.utf8))?.deallocate()
    }

    func text(_ kind: StateKind, _ id: UnsafeBufferPointer<UInt8>) -> UnsafeRawBufferPointer? {
        texts[kind]?[Array(id)].map { UnsafeRawBufferPointer($0) }
    }

    func forEach(_ kind: StateKind, _ body: (UnsafeBufferPointer<UInt8>, UnsafeRawBufferPointer) -> Void) {
        for (id, text) in texts[kind] ?? [:] { id.withUnsafeBufferPointer { body($0, UnsafeRawBufferPointer(text)) } }
    }
}

struct World {
    let routes: Int
    let envs: Int
    let instances: Int
    let objects = Objects()

    init(routes: Int, envs: Int, instances: Int) {
        (self.routes, self.envs, self.instances) = (routes, envs, instances)
        for env in 0..<envs {
            objects.set(.env, "env_\(env)", "{\"env_id\":\"env_\(env)\",\"app_id\":\"app\",\"org_id\":\"org_\(env)\"}")
        }
        for route in 0..<routes { set(route: route, limit: 0) }
        for instance in 0..<instances { set(instance: instance, "ready") }
    }

    func set(route: Int, limit: Int) {
        objects.set(
            .route, "rt_\(route)",
            "{\"route_id\":\"rt_\(route)\",\"env_id\":\"env_\(route % envs)\",\"hostname\":\"app\(route).example.com\","
                + "\"listen_port\":443,\"protocol_hint\":\"tls_passthrough\",\"backend_process_type\":\"web\","
                + "\"backend_port\":8080,\"max_connections\":\(limit == 0 ? "null" : "\(limit)")}")
    }

    func set(instance: Int, _ status: String) {
        let address = "fd00::\(String(instance / 65536 + 1, radix: 16)):\(String(instance % 65536, radix: 16))"
        objects.set(
            .instance, "i_\(instance)",
            "{\"instance_id\":\"i_\(instance)\",\"env_id\":\"env_\(instance % envs)\",\"process_type\":\"web\","
                + "\"overlay_ipv6\":\"\(address)\",\"node_id\":\"n1\",\"status\":\"\(status)\"}")
    }
}

func ms(_ nanoseconds: UInt64) -> String {
    let hundredths = nanoseconds / 10_000
    return "\(hundredths / 100).\(hundredths / 10 % 10)\(hundredths % 10) ms"
}

struct Times {
    private var all: [UInt64] = []
    mutating func add(_ time: UInt64) { all.append(time) }
    var text: String {
        let sorted = all.sorted()
        guard let most = sorted.last else { return "none" }
        return "p50 \(ms(sorted[sorted.count / 2])), p99 \(ms(sorted[sorted.count * 99 / 100])), most \(ms(most))"
    }
}

let numbers = CommandLine.arguments.dropFirst().compactMap { Int($0) }
let (routes, envs, instances) =
    numbers.count >= 3 ? (numbers[0], numbers[1], numbers[2]) : (1_000_000, 10_000, 100_000)
let changes = numbers.count > 3 ? numbers[3] : 200
let config = """
    health web {
        probe     tcp
        interval  3600s
    }
    pipeline tls {
        sni      timeout 3s, max 16KiB
        backend  round_robin, health web
    }
    listen [::]:443 tls_passthrough via tls
    """
let compiled = compile(Array(config.utf8), file: "changes", catalog: catalog)
guard let program = compiled.program else {
    print(compiled.diagnostics)
    exit(1)
}
let state = RoutingState(seed: HashSeed(1, 2))
let world = World(routes: routes, envs: envs, instances: instances)
let began = now()
let first = state.applyAll(of: world.objects, at: nil)
print("\(first.added) routes, \(instances) instances, \(envs) envs: \(ms(now() - began)) to apply all")
let follower = Follower(program, state)
let loaded = now()
follower.follow()
print("\(ms(now() - loaded)) to follow all")

/// - Parameter change: of a number, there and back.
@MainActor func measure(_ what: String, _ change: (Int, Bool) -> (StateKind, String)) {
    var (apply, follow) = (Times(), Times())
    var shards = 0
    var random = SplitMix64(seed: 7)
    for _ in 0..<changes {
        let number = random.below(1 << 30)
        for isBack in [false, true] {
            let (kind, id) = change(number, isBack)
            var touched = TouchedObjects()
            touched.insert(kind, id.utf8)
            let start = now()
            let report = state.apply(touched, of: world.objects, at: Instant(nanoseconds: start))
            let applied = now()
            apply.add(applied - start)
            shards = max(shards, report.shardsBuilt)
            follower.follow()
            follow.add(now() - applied)
        }
    }
    print("\(what): the table \(apply.text), at most \(shards) shards; health \(follow.text)")
}

measure("one instance fails, and is ready again") { number, isBack in
    world.set(instance: number % instances, isBack ? "ready" : "failed")
    return (.instance, "i_\(number % instances)")
}
measure("one route has a limit, and none again") { number, isBack in
    world.set(route: number % routes, limit: isBack ? 0 : 100)
    return (.route, "rt_\(number % routes)")
}
follower.stop()
