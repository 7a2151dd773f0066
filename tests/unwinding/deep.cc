// Stacks of C++: virtual calls, templates of the library, exceptions.
#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

volatile unsigned long sink;

static __attribute__((noinline)) double burn(double x)
{
	for (int i = 0; i < 3000; i++)
		x = x * 1.0000001 + 0.5 / (x + 1);
	return x;
}

struct Shape {
	virtual ~Shape() {}
	virtual double area(int depth) const = 0;
};

struct Leaf : Shape {
	double area(int depth) const override { return burn(depth + 1.0); }
};

struct Node : Shape {
	std::vector<Shape *> parts;
	double area(int depth) const override
	{
		double sum = 0;
		for (auto part : parts)
			sum += part->area(depth + 1);
		return sum;
	}
};

static Shape *build(int depth)
{
	if (depth == 0)
		return new Leaf;
	auto node = new Node;
	for (int i = 0; i < 2; i++)
		node->parts.push_back(build(depth - 1));
	return node;
}

static __attribute__((noinline)) void thrower(int n)
{
	if (n == 0)
		throw std::runtime_error("thrown");
	burn(n);
	thrower(n - 1);
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 20;
	Shape *shape = build(8);
	std::map<std::string, int> names;
	std::function<double(double)> call = [](double x) { return burn(x); };

	for (int r = 0; r < rounds; r++) {
		sink += (unsigned long)shape->area(0);
		std::vector<double> values(400);
		for (size_t i = 0; i < values.size(); i++)
			values[i] = (i * 7919) % 401;
		std::sort(values.begin(), values.end(),
			  [](double a, double b) { return burn(a) < burn(b); });
		for (int i = 0; i < 50; i++)
			names[std::to_string(i)] += (int)call(i);
		for (int i = 0; i < 50; i++) {
			try {
				thrower(10);
			} catch (std::exception &) {
				sink++;
			}
		}
	}
	return 0;
}
