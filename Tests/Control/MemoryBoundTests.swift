import Foundation
import Pipeline
import Testing

@testable import PipelineNode

/// R27: how much memory there is, and what of it is used, on machines that never were.
@Suite("Memory: what bounds the node, and what it uses")
struct MemoryBoundTests {
    /// A `/proc` and a `/sys` of its own.
    private final class Machine {
        let root = NSTemporaryDirectory() + "memory-\(UUID().uuidString)"

        init(_ files: [String: String]) throws {
            let common = [
                "/proc/meminfo": "MemTotal:       8388608 kB\nMemFree:  1 kB\n",
                "/proc/self/status": "Name:\tx\nVmRSS:\t  9000 kB\nRssAnon:\t    4096 kB\n",
                "/proc/net/sockstat":
                    "sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 7 mem 256\nUDP: inuse 1 mem 9\n",
            ]
            for (path, text) in common.merging(files, uniquingKeysWith: { $1 }) {
                let url = URL(fileURLWithPath: root + path)
                try FileManager.default.createDirectory(
                    at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
                try text.write(to: url, atomically: true, encoding: .utf8)
            }
        }
        deinit { try? FileManager.default.removeItem(atPath: root) }
        var reading: MemoryBound.Reading { MemoryBound(root: root).read() }
    }

    private static let mebi: UInt64 = 1 << 20

    @Test("no cgroup bounds it: the machine's memory, its own pages and TCP's") func machine() throws {
        let machine = try Machine(["/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.stat": "anon 1\n"])
        #expect(machine.reading == .init(allowed: 8192 * Self.mebi, used: 4 * Self.mebi + 256 * 4096))
        #expect(try Machine([:]).reading.allowed == 8192 * Self.mebi)
    }

    @Test("TCP's memory counts as far as this node's connections can hold it: the rest is others'") func others() throws
    {
        let machine = try Machine([
            "/proc/self/cgroup": "0::/\n",
            "/proc/net/sockstat": "sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 7 mem 256000\n",
            "/proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456\n",
            "/proc/sys/net/ipv4/tcp_wmem": "4096\t16384\t4194304\n",
        ])
        let bound = MemoryBound(root: machine.root)
        #expect(bound.read(connections: 0).used == 4 * Self.mebi)
        #expect(bound.read(connections: 1).used == (4 + 40) * Self.mebi)
        #expect(bound.read(connections: 1000).used == 4 * Self.mebi + 256_000 * 4096)
        #expect(machine.reading.used == 4 * Self.mebi + 256_000 * 4096)
    }

    @Test("v2: the least of its cgroups and those above; of files what can be given back does not count") func second()
        throws
    {
        let machine = try Machine([
            "/proc/self/cgroup": "0::/system.slice/edge.service\n",
            "/sys/fs/cgroup/system.slice/edge.service/memory.max": "max\n",
            "/sys/fs/cgroup/system.slice/edge.service/memory.current": "1000\n",
            "/sys/fs/cgroup/system.slice/memory.max": "67108864\n",
            "/sys/fs/cgroup/system.slice/memory.current": "50331648\n",
            "/sys/fs/cgroup/system.slice/memory.stat": "anon 5\ninactive_file 1048576\nactive_file 1048576\nsock 9\n",
        ])
        #expect(machine.reading == .init(allowed: 64 * Self.mebi, used: 46 * Self.mebi))
    }

    @Test("v1: socket buffers are counted beside it") func first() throws {
        let machine = try Machine([
            "/proc/self/cgroup": "9:cpu,cpuacct:/a\n4:memory:/docker/x\n0::/\n",
            "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "67108864\n",
            "/sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes": "33554432\n",
            "/sys/fs/cgroup/memory/docker/x/memory.stat": "total_inactive_file 1048576\n",
            "/sys/fs/cgroup/memory/docker/x/memory.kmem.tcp.usage_in_bytes": "2097152\n",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
        ])
        #expect(machine.reading == .init(allowed: 64 * Self.mebi, used: 33 * Self.mebi))
    }

    @Test("short above 90 % of the bound, and until it is below 85 %") func watch() throws {
        let machine = try Machine(["/proc/self/cgroup": "0::/\n"])
        let used = machine.reading.used
        var watch = MemoryWatch(MemoryBound(root: machine.root))
        var now = Instant(nanoseconds: 0)
        func look(_ bound: UInt64) -> Bool {
            now = now + .seconds(2)
            return watch.look(.bytes(bound), now)
        }
        #expect(!look(used * 100 / 80))
        #expect(look(used * 100 / 95) && watch.isShort)
        #expect(!look(used * 100 / 87) && watch.isShort)
        #expect(look(used * 100 / 80) && !watch.isShort)
        #expect(watch.bound(.percent(50)) == 4096 * Self.mebi)
    }
}
