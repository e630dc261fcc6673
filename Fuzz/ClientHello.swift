/// libFuzzer's entry: any bytes as the start of a TLS connection.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzClientHello(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = UnsafeBufferPointer(start: data, count: data == nil ? 0 : count)
    for limit in [512, 8192, 65536] {
        if let violation = ClientHelloProperties.violation(bytes, limit: limit) {
            fatalError("limit \(limit): \(violation)")
        }
    }
    return 0
}
