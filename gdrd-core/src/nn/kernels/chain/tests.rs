use super::super::testing::{assert_close, flat, gradients, on_each_level, random, with_threads};
use super::super::{batch_norm_train, conv2d, prelu, relu};
use super::*;

/// Outputs, kernel, stride, padding, whether depthwise, and the activation of a link.
type Row = (usize, usize, usize, usize, bool, Bend);

/// All tensors of a chain on `x`: `x`, then weight, gamma, beta and perhaps slopes of each link.
fn tensors(x: (usize, usize, usize, usize), rows: &[Row]) -> Vec<Tensor> {
    let (mut all, mut inputs) = (vec![random(x, 1).expect("x")], x.1);
    for (at, (outputs, kernel, _, _, depthwise, bend)) in rows.iter().enumerate() {
        let seed = 10 * at as u64;
        let group_inputs = if *depthwise { 1 } else { inputs };
        let mean = 1.0 / ((group_inputs * kernel * kernel) as f64).sqrt();
        let weight = random((*outputs, group_inputs, *kernel, *kernel), seed + 2).and_then(|w| w * (2.0 * mean));
        all.push(weight.expect("weight"));
        all.push(random(*outputs, seed + 3).and_then(|g| g.affine(0.3, 1.0)).expect("gamma"));
        all.push(random(*outputs, seed + 4).and_then(|b| b * 3.0).expect("beta"));
        if *bend == Bend::PRelu {
            all.push(random(*outputs, seed + 5).and_then(|s| s.affine(0.2, 0.25)).expect("slopes"));
        }
        inputs = *outputs;
    }
    all
}

/// The links of these tensors.
fn links<'a>(v: &'a [Tensor], rows: &[Row]) -> Vec<Link<'a>> {
    let mut at = 1;
    let link = |(_, _, stride, padding, depthwise, bend): &Row| {
        let [weight, gamma, beta] = [&v[at], &v[at + 1], &v[at + 2]];
        at += 3;
        let activation = match bend {
            Bend::Identity => LinkActivation::Identity,
            Bend::Relu => LinkActivation::Relu,
            Bend::Relu6 => LinkActivation::Relu6,
            Bend::PRelu => {
                at += 1;
                LinkActivation::PRelu(&v[at - 1])
            }
        };
        let groups = if *depthwise { weight.dims()[0] } else { 1 };
        Link { weight, gamma, beta, eps: 1e-5, stride: *stride, padding: *padding, groups, activation }
    };
    rows.iter().map(link).collect()
}

/// The same by operations of their own.
fn one_by_one(x: &Tensor, links: &[Link], residual: bool) -> Result<Tensor> {
    let mut y = x.clone();
    for link in links {
        let z = conv2d(&y, link.weight, link.stride, link.padding, link.groups)?;
        let z = batch_norm_train(&z, link.gamma, link.beta, link.eps)?.0;
        y = match link.activation {
            LinkActivation::Identity => z,
            LinkActivation::Relu => relu(&z)?,
            LinkActivation::Relu6 => z.clamp(0f32, 6f32)?,
            LinkActivation::PRelu(slopes) => prelu(&z, slopes)?,
        };
    }
    if residual { y + x } else { Ok(y) }
}

fn chain(x: &Tensor, links: &[Link], residual: bool) -> Result<Tensor> {
    Ok(conv_chain(x, links, residual)?.ok_or_else(|| candle_core::Error::Msg("no kernel".into()))?.0)
}

/// The input's shape, the layers, and whether the input is added to the output.
type Case = ((usize, usize, usize, usize), Vec<Row>, bool);

/// Every kind of layer, first, in between and last; odd sizes, maps of several chunks, strides, kernels as large as the map.
fn cases() -> Vec<Case> {
    use Bend::{Identity, PRelu, Relu, Relu6};
    vec![
        (
            (3, 16, 7, 7),
            vec![(32, 1, 1, 0, false, Relu6), (32, 3, 1, 1, true, Relu6), (16, 1, 1, 0, false, Identity)],
            true,
        ),
        (
            (2, 16, 9, 11),
            vec![(48, 1, 1, 0, false, PRelu), (48, 3, 2, 1, true, PRelu), (20, 1, 1, 0, false, Identity)],
            false,
        ),
        (
            (2, 3, 13, 13),
            vec![(16, 3, 2, 1, false, Relu6), (16, 3, 1, 1, true, Relu), (24, 1, 1, 0, false, Relu)],
            false,
        ),
        ((5, 32, 5, 5), vec![(64, 1, 1, 0, false, PRelu), (64, 5, 1, 0, true, Identity)], false),
        ((2, 16, 25, 24), vec![(16, 1, 1, 0, false, Relu), (18, 3, 1, 1, false, PRelu)], false),
        ((17, 48, 4, 4), vec![(48, 3, 1, 1, true, PRelu)], false),
        ((1, 16, 6, 6), vec![(16, 1, 1, 0, false, Identity)], true),
    ]
}

#[test]
fn a_chain_equals_its_links() {
    for (x, rows, residual) in cases() {
        let all = tensors(x, &rows);
        let inputs: Vec<&Tensor> = all.iter().collect();
        let theirs = gradients(&inputs, |v| one_by_one(&v[0], &links(v, &rows), residual));
        on_each_level(|| {
            let ours = gradients(&inputs, |v| chain(&v[0], &links(v, &rows), residual));
            // A value at the corner of an activation may fall on either side; there are none here.
            assert_close(&ours, &theirs, 2e-4);
        });
    }
}

#[test]
fn the_statistics_are_those_of_the_links() {
    let (x, rows, _) = cases().remove(0);
    let all = tensors(x, &rows);
    let links = links(&all, &rows);
    let (_, found) = conv_chain(&all[0], &links, false).expect("fits").expect("a kernel");
    let z = conv2d(&all[0], links[0].weight, 1, 0, 1).expect("a map");
    let (_, mean, var) = batch_norm_train(&z, links[0].gamma, links[0].beta, 1e-5).expect("normal");
    assert_close(&[flat(&found[0].mean), flat(&found[0].var)], &[flat(&mean), flat(&var)], 1e-5);
    assert_eq!((found.len(), found[0].count), (3, 3 * 7 * 7));
}

#[test]
fn gradients_agree_with_finite_differences() {
    let (x, rows, residual) = cases().remove(2);
    let all = tensors(x, &rows);
    let inputs: Vec<&Tensor> = all.iter().collect();
    let of = |v: &[Tensor]| {
        let y = chain(&v[0], &links(v, &rows), residual)?;
        (&y * random(y.dims().to_vec(), 77)?)?.sum_all()?.to_scalar::<f32>()
    };
    let exact = gradients(&inputs, |v| chain(&v[0], &links(v, &rows), residual));
    for which in 0..all.len() {
        let count = all[which].elem_count();
        for at in [0, count / 2, count - 1] {
            let moved = |by: f32| {
                let mut moved = all.clone();
                let mut values = flat(&all[which]);
                values[at] += by;
                moved[which] = Tensor::from_vec(values, all[which].shape(), all[which].device()).expect("a tensor");
                f64::from(of(&moved).expect("a value"))
            };
            let step = 4e-3f32;
            let slope = (moved(step) - moved(-step)) / f64::from(2.0 * step);
            let exact = f64::from(exact[which + 1][at]);
            let most = exact.abs().max(1.0);
            assert!((slope - exact).abs() < 0.05 * most, "tensor {which} at {at}: {slope} and {exact}");
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    for (x, rows, residual) in cases() {
        let all = tensors(x, &rows);
        let inputs: Vec<&Tensor> = all.iter().collect();
        on_each_level(|| {
            let run =
                |threads| with_threads(threads, || gradients(&inputs, |v| chain(&v[0], &links(v, &rows), residual)));
            let one = run(1);
            assert!(one == run(2) && one == run(3), "{x:?}");
        });
    }
}

#[test]
fn chains_that_do_not_fit_are_refused() {
    let (x, rows, _) = cases().remove(1);
    let all = tensors(x, &rows);
    assert!(conv_chain(&all[0], &links(&all, &rows), true).is_err(), "another size at its end");
    let halves = all[0].to_dtype(candle_core::DType::F16).expect("half precision");
    assert!(conv_chain(&halves, &links(&all, &rows), false).expect("no error").is_none());
    let wrong = random((2, 8, 9, 11), 1).expect("x");
    assert!(conv_chain(&wrong, &links(&all, &rows), false).is_err(), "other channels");
}
