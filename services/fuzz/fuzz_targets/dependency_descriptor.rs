//! Dependency descriptors, one after the other on one structure: what is accepted is
//! written and read again alike.

#![no_main]

use headwater_rtp::dependency::{DependencyDescriptor, TemplateStructure};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|values: Vec<&[u8]>| {
    let mut structure = TemplateStructure::default();
    for value in values {
        let before = structure.clone();
        let Ok(read) = DependencyDescriptor::parse(value, &mut structure) else {
            assert_eq!(structure, before);
            continue;
        };
        for target in 0..structure.decode_target_count() {
            assert!(structure.decode_target_layers(target).is_some());
        }
        let _ = structure.decode_target_up_to(1, 1, structure.all_decode_targets());
        let mut out = [0; 4_096];
        let len = read
            .write(&structure, &mut out)
            .expect("room for any descriptor");
        let mut again = structure.clone();
        assert_eq!(
            DependencyDescriptor::parse(&out[..len], &mut again),
            Ok(read)
        );
        assert_eq!(again, structure);
    }
});
