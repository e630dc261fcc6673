import Pipeline
import TestSupport
import Testing

@Suite("InstanceDirectory") struct InstanceDirectoryTests {
    private func identity(_ number: UInt32) -> UnsafeMutablePointer<InstanceIdentity> {
        TestIdentity.make(number: number, id: "i_\(number)", env: "env", app: "app", org: "org")
    }

    @Test("R19: every address is found, and no other", arguments: [0, 1, 2, 3, 100, 5000])
    func lookups(_ count: Int) {
        let identities = (0..<count).map { identity(UInt32($0 + 7)) }
        defer { for identity in identities { TestIdentity.free(identity) } }
        let v6 = { (i: Int) in IPAddress(high: 0xFD00 << 48, low: UInt64(i)) }
        let v4 = { (i: Int) in IPAddress(v4: 0x0A00_0000 + UInt32(i)) }
        let directory = InstanceDirectory(
            identities.map { UnsafePointer($0) }, addresses: (0..<count).flatMap { [(v6($0), $0), (v4($0), $0)] })
        defer { directory.deallocate() }
        for i in 0..<count {
            #expect(directory.find(v6(i)) == UInt32(i + 7))
            #expect(directory.find(v4(i)) == UInt32(i + 7))
        }
        for i in count..<count + 1000 {
            #expect(directory.find(v6(i)) == nil)
            #expect(directory.find(v4(i)) == nil)
        }
        #expect(directory.find(.unspecified) == nil)
        #expect(directory.identities.count == count)
    }

    @Test("the empty one knows nobody") func empty() {
        #expect(InstanceDirectory.empty.find(.unspecified) == nil)
        #expect(InstanceDirectory.empty.find(IPAddress(v4: 1)) == nil)
        #expect(InstanceDirectory.empty.identities.isEmpty)
        InstanceDirectory.empty.deallocate()
    }
}
