import CLinux
import Glibc
import Pipeline
import TestSupport
import Testing

@testable import PipelineRuntime

@Suite("Sinks that pace what they send")
struct PacedSinkTests {
    @Test(
        "are handed what goes out as one segment",
        arguments: [(1448, 65160), (1460, 64240), (536, 64856), (65215, 65215), (65464, 65464), (1, 65215)])
    func burst(segment: Int, expected: UInt32) {
        #expect(Worker<LinuxKernel>.burst(segment: segment) == expected)
    }

    @Test("others, and those that can't be asked, all at once", arguments: [nil, 0, -1])
    func noBurst(segment: Int?) {
        #expect(Worker<LinuxKernel>.burst(segment: segment) == .max)
    }

    @Test("are known by their congestion control", arguments: ["bbr", "reno"].filter(CongestionControl.isUsable))
    func congestionControl(name: String) throws {
        let socket = Glibc.socket(AF_INET6, Int32(SOCK_STREAM.rawValue), 0)
        try #require(socket >= 0)
        defer { Glibc.close(socket) }
        try #require(setsockopt(socket, Int32(IPPROTO_TCP), TCP_CONGESTION, name, socklen_t(name.utf8.count)) == 0)
        #expect((cl_paced_segment(socket) > 0) == (name == "bbr"))
    }

    @Test("what is no socket is none of them")
    func noSocket() { #expect(cl_paced_segment(-1) == 0) }
}
