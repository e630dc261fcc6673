// swift-tools-version: 6.2
import PackageDescription

// A filter and a daemon outside of the package that has the data path: nothing in there knows of it.
let package = Package(
    name: "geo-filter",
    dependencies: [.package(name: "pipelined", path: "../..")],
    targets: [
        .target(name: "GeoFilter", dependencies: [.product(name: "PipelinedCommand", package: "pipelined")]),
        .executableTarget(
            name: "geo-pipelined",
            dependencies: ["GeoFilter", .product(name: "PipelinedCommand", package: "pipelined")]),
    ]
)
