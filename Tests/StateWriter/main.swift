// Writes a store until it is killed, for StateKillTests: every change says its number, after which it is said.
import CLinux
import Glibc
import Pipeline
import PipelineState

var settings = StateSettings()
settings.reserveBytes = 0
settings.leastLog = 2000
settings.snapshotShare = 1

func say(_ number: UInt32) {
    withUnsafeBytes(of: number) { _ = write(1, $0.baseAddress, $0.count) }
}

let place = StatePlace(directory: CommandLine.arguments[1], disk: LinuxDisk(), settings: settings)
do {
    let (store, _) = try StateStore.open(place, seed: { Array(1...16) })
    let last = Array("last".utf8)
    var number: UInt32 = 0
    last.withUnsafeBufferPointer {
        if let value = store.value(1, $0), value.count == 4 { number = value.loadUnaligned(as: UInt32.self) }
    }
    // It is open, and what it goes on from.
    say(number)
    while true {
        number += 1
        var batch = StateBatch()
        withUnsafeBytes(of: number) {
            batch.put(1, last, $0)
            batch.put(2, Array("key-\(number % 37)".utf8), $0)
        }
        if number % 200 == 0 {
            try store.replaceAll { writer throws(StateFault) in
                for key in (number - 36)...number {
                    // withUnsafeBytes knows no typed throws with a result that is not there.
                    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: 4, alignment: 4)
                    defer { bytes.deallocate() }
                    bytes.storeBytes(of: key, as: UInt32.self)
                    try writer.put(2, Array("key-\(key % 37)".utf8), UnsafeRawBufferPointer(bytes))
                    if key == number { try writer.put(1, last, UnsafeRawBufferPointer(bytes)) }
                }
            }
        } else {
            try store.append(batch, durably: number % 5 == 0)
        }
        say(number)
        if store.wantsCompaction { try store.beginCompaction() }
        _ = store.adoptCompaction()
    }
} catch {
    exit(1)
}
