-- Registers a node under a number that no other has.
-- KEYS: nodes, beats, run, number. ARGV: the node's name, a random text for a cluster that begins, the channel of news.
local run = redis.call('GET', KEYS[3])
if not run then
  run = ARGV[2]
  redis.call('SET', KEYS[3], run)
end
local number
repeat
  number = redis.call('INCR', KEYS[4]) % 4095 + 1
until redis.call('HEXISTS', KEYS[1], number) == 0
redis.call('HSET', KEYS[1], number, ARGV[1])
redis.call('HSET', KEYS[2], number, 1)
redis.call('PUBLISH', ARGV[3], 'came')
return {number, run}
