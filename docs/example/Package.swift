// swift-tools-version: 6.2
// A program that speaks with the kernel, and its tests on a kernel of their own.
import PackageDescription

let package = Package(
    name: "address",
    dependencies: [
        // Elsewhere: .package(url: "https://…/windhover", from: "1.0.0"), or branch: "main".
        .package(name: "windhover", path: "../..")
    ],
    targets: [
        .executableTarget(name: "address"),
        .testTarget(
            name: "AddressTests",
            dependencies: [
                // So that it is built before its tests run.
                "address",
                .product(name: "Windhover", package: "windhover"),
                .product(name: "WindhoverTesting", package: "windhover"),
            ]),
    ]
)
