// Written by handlers.py. What the handlers do is in VectorBodies.swift.

/// Operands' places: x an XMM register, g a general one, m memory, i memory with an index.
enum HotVectorForm: UInt8 { case xx, xg, gx, xm, mx, xi, ix }

extension Handlers {
    static func vector(_ operation: HotVector, _ form: HotVectorForm) -> Handler? {
        switch operation {
        case .move16: move16(form)
        case .load4: load4(form)
        case .load8: load8(form)
        case .move4: move4(form)
        case .move8: move8(form)
        case .toGeneral4: toGeneral4(form)
        case .toGeneral8: toGeneral8(form)
        case .loadHigh: loadHigh(form)
        case .storeHigh: storeHigh(form)
        case .shuffle32: shuffle32(form)
        case .byteMask: byteMask(form)
        case .xor: xor(form)
        case .or: or(form)
        case .and: and(form)
        case .andNot: andNot(form)
        case .add8: add8(form)
        case .add16: add16(form)
        case .add32: add32(form)
        case .add64: add64(form)
        case .subtract8: subtract8(form)
        case .subtract16: subtract16(form)
        case .subtract32: subtract32(form)
        case .subtract64: subtract64(form)
        case .equal8: equal8(form)
        case .equal16: equal16(form)
        case .equal32: equal32(form)
        case .greater8: greater8(form)
        case .greater16: greater16(form)
        case .greater32: greater32(form)
        case .minimumUnsigned8: minimumUnsigned8(form)
        case .maximumUnsigned8: maximumUnsigned8(form)
        case .unpackLow8: unpackLow8(form)
        case .unpackLow16: unpackLow16(form)
        case .unpackLow32: unpackLow32(form)
        case .unpackLow64: unpackLow64(form)
        case .unpackHigh8: unpackHigh8(form)
        case .unpackHigh16: unpackHigh16(form)
        case .unpackHigh32: unpackHigh32(form)
        case .unpackHigh64: unpackHigh64(form)
        }
    }

    private static func move16(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.move16, $0, $1, $2, $3) }
        case .xm: { vectorXM(.move16, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.move16, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        case .mx: { vectorMX(.move16, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .ix: { vectorMX(.move16, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func load4(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xm: { vectorXM(.load4, UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.load4, UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        case .xg: { vectorXG(.load4, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func load8(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.load8, $0, $1, $2, $3) }
        case .xm: { vectorXM(.load8, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.load8, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        case .xg: { vectorXG(.load8, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func move4(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.move4, $0, $1, $2, $3) }
        case .mx: { vectorMX(.move4, UInt32.self, HotBased.self, $0, $1, $2, $3) }
        case .ix: { vectorMX(.move4, UInt32.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func move8(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.move8, $0, $1, $2, $3) }
        case .xm: { vectorXM(.move8, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.move8, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        case .mx: { vectorMX(.move8, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case .ix: { vectorMX(.move8, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func toGeneral4(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .gx: { vectorGX(.toGeneral4, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func toGeneral8(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .gx: { vectorGX(.toGeneral8, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func loadHigh(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.loadHigh, $0, $1, $2, $3) }
        case .xm: { vectorXM(.loadHigh, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.loadHigh, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func storeHigh(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .mx: { vectorMX(.storeHigh, UInt64.self, HotBased.self, $0, $1, $2, $3) }
        case .ix: { vectorMX(.storeHigh, UInt64.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func shuffle32(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.shuffle32, $0, $1, $2, $3) }
        case .xm: { vectorXM(.shuffle32, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.shuffle32, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func byteMask(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .gx: { vectorGX(.byteMask, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func xor(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.xor, $0, $1, $2, $3) }
        case .xm: { vectorXM(.xor, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.xor, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func or(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.or, $0, $1, $2, $3) }
        case .xm: { vectorXM(.or, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.or, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func and(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.and, $0, $1, $2, $3) }
        case .xm: { vectorXM(.and, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.and, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func andNot(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.andNot, $0, $1, $2, $3) }
        case .xm: { vectorXM(.andNot, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.andNot, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func add8(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.add8, $0, $1, $2, $3) }
        case .xm: { vectorXM(.add8, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.add8, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func add16(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.add16, $0, $1, $2, $3) }
        case .xm: { vectorXM(.add16, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.add16, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func add32(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.add32, $0, $1, $2, $3) }
        case .xm: { vectorXM(.add32, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.add32, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func add64(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.add64, $0, $1, $2, $3) }
        case .xm: { vectorXM(.add64, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.add64, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func subtract8(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.subtract8, $0, $1, $2, $3) }
        case .xm: { vectorXM(.subtract8, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.subtract8, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func subtract16(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.subtract16, $0, $1, $2, $3) }
        case .xm: { vectorXM(.subtract16, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.subtract16, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func subtract32(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.subtract32, $0, $1, $2, $3) }
        case .xm: { vectorXM(.subtract32, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.subtract32, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func subtract64(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.subtract64, $0, $1, $2, $3) }
        case .xm: { vectorXM(.subtract64, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.subtract64, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func equal8(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.equal8, $0, $1, $2, $3) }
        case .xm: { vectorXM(.equal8, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.equal8, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func equal16(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.equal16, $0, $1, $2, $3) }
        case .xm: { vectorXM(.equal16, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.equal16, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func equal32(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.equal32, $0, $1, $2, $3) }
        case .xm: { vectorXM(.equal32, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.equal32, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func greater8(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.greater8, $0, $1, $2, $3) }
        case .xm: { vectorXM(.greater8, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.greater8, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func greater16(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.greater16, $0, $1, $2, $3) }
        case .xm: { vectorXM(.greater16, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.greater16, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func greater32(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.greater32, $0, $1, $2, $3) }
        case .xm: { vectorXM(.greater32, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.greater32, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func minimumUnsigned8(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.minimumUnsigned8, $0, $1, $2, $3) }
        case .xm: { vectorXM(.minimumUnsigned8, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.minimumUnsigned8, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func maximumUnsigned8(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.maximumUnsigned8, $0, $1, $2, $3) }
        case .xm: { vectorXM(.maximumUnsigned8, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.maximumUnsigned8, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func unpackLow8(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.unpackLow8, $0, $1, $2, $3) }
        case .xm: { vectorXM(.unpackLow8, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.unpackLow8, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func unpackLow16(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.unpackLow16, $0, $1, $2, $3) }
        case .xm: { vectorXM(.unpackLow16, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.unpackLow16, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func unpackLow32(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.unpackLow32, $0, $1, $2, $3) }
        case .xm: { vectorXM(.unpackLow32, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.unpackLow32, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func unpackLow64(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.unpackLow64, $0, $1, $2, $3) }
        case .xm: { vectorXM(.unpackLow64, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.unpackLow64, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func unpackHigh8(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.unpackHigh8, $0, $1, $2, $3) }
        case .xm: { vectorXM(.unpackHigh8, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.unpackHigh8, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func unpackHigh16(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.unpackHigh16, $0, $1, $2, $3) }
        case .xm: { vectorXM(.unpackHigh16, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.unpackHigh16, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func unpackHigh32(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.unpackHigh32, $0, $1, $2, $3) }
        case .xm: { vectorXM(.unpackHigh32, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.unpackHigh32, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }

    private static func unpackHigh64(_ form: HotVectorForm) -> Handler? {
        switch form {
        case .xx: { vectorXX(.unpackHigh64, $0, $1, $2, $3) }
        case .xm: { vectorXM(.unpackHigh64, SIMD2<UInt64>.self, HotBased.self, $0, $1, $2, $3) }
        case .xi: { vectorXM(.unpackHigh64, SIMD2<UInt64>.self, HotIndexed.self, $0, $1, $2, $3) }
        default: nil
        }
    }
}
